"""Health: alive, ready, and in detail."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from ai_lab import __version__
from ai_lab.clock import now
from ai_lab.telemetry import ComponentHealth
from backend.deps import LabDep

router = APIRouter(tags=["health"])
_UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"description": "Nothing can be answered at the moment."}}


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class HealthSummary(BaseModel):
    """The state of the whole."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str = __version__
    uptime_seconds: float
    timestamp: datetime


class HealthDetails(HealthSummary):
    """The state of every component."""

    components: list[ComponentHealth]


@router.get("/health/live")
async def live() -> Alive:
    """Say that the process runs; touches nothing."""
    return Alive()


@router.get("/health/ready", response_model=HealthSummary, responses=_UNHEALTHY)
async def ready(lab: LabDep, response: Response) -> HealthSummary:
    """Say whether requests can be answered: the database is there."""
    database = await lab.health.database()
    return _summary(lab, response, database.status)


@router.get("/health", response_model=HealthSummary, responses=_UNHEALTHY)
async def health(lab: LabDep, response: Response) -> HealthSummary:
    """Say how the whole is."""
    return _summary(lab, response, (await lab.health.report()).status)


@router.get("/health/detailed", response_model=HealthDetails, responses=_UNHEALTHY)
async def detailed(lab: LabDep, response: Response) -> HealthDetails:
    """Say how every component is, and what to do where something is wrong."""
    report = await lab.health.report()
    summary = _summary(lab, response, report.status)
    return HealthDetails(**summary.model_dump(), components=report.components)


def _summary(lab: LabDep, response: Response, status: Literal["healthy", "degraded", "unhealthy"]) -> HealthSummary:
    if status == "unhealthy":
        response.status_code = 503
    moment = now()
    uptime = (moment - lab.started_at).total_seconds()
    return HealthSummary(status=status, uptime_seconds=round(uptime, 1), timestamp=moment)
