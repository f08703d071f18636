"""Health: alive, ready, and in detail."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from ai_lab import __version__
from ai_lab.clock import now
from ai_lab.lab import Lab
from ai_lab.telemetry import ComponentHealth, SystemMetrics
from ai_lab.telemetry.health import HealthStatus
from backend.deps import LabDep

router = APIRouter(tags=["health"])
_UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"description": "Nothing can be answered at the moment."}}


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class HealthSummary(BaseModel):
    """The state of the whole."""

    status: HealthStatus
    version: str = __version__
    uptime_seconds: float
    timestamp: float = Field(description="Unix seconds, as clients of the earlier AI-Lab read it.")


class FlatMetrics(BaseModel):
    """The machine in the seven names that clients of the earlier AI-Lab read."""

    cpu_usage_percent: float | None
    memory_usage_percent: float
    memory_usage_bytes: int
    gpu_utilization_percent: float | None
    gpu_memory_used_mb: float | None
    gpu_memory_total_mb: float | None
    gpu_temperature_c: float | None


class HealthWithMetrics(HealthSummary):
    """The state of the whole, and the machine's."""

    database: Literal["connected", "unavailable"]
    metrics: FlatMetrics | None = Field(description="None where sampling is switched off or has not begun.")


class HealthDetails(HealthSummary):
    """The state of every component."""

    components: list[ComponentHealth]


@router.get("/health/live")
async def live() -> Alive:
    """Say that the process runs; touches nothing."""
    return Alive()


@router.get("/health/ready", response_model=HealthSummary, responses=_UNHEALTHY)
async def ready(lab: LabDep, response: Response) -> HealthSummary:
    """Say whether requests can be answered: the database is there and the server is not about to stop."""
    database = await lab.health.database()
    status: HealthStatus = "unhealthy" if lab.chat.is_stopping else database.status
    return HealthSummary(**_summary(lab, response, status))


@router.get("/health", response_model=HealthWithMetrics, responses=_UNHEALTHY)
async def health(lab: LabDep, response: Response) -> HealthWithMetrics:
    """Say how the whole is, and the machine."""
    report = await lab.health.report()
    database = next(component for component in report.components if component.component == "database")
    metrics = lab.telemetry.latest_metrics()
    return HealthWithMetrics(
        **_summary(lab, response, report.status),
        database="unavailable" if database.status == "unhealthy" else "connected",
        metrics=_flat(metrics) if metrics else None,
    )


@router.get("/health/detailed", response_model=HealthDetails, responses=_UNHEALTHY)
async def detailed(lab: LabDep, response: Response) -> HealthDetails:
    """Say how every component is, and what to do where something is wrong."""
    report = await lab.health.report()
    return HealthDetails(**_summary(lab, response, report.status), components=report.components)


def _summary(lab: Lab, response: Response, status: HealthStatus) -> dict[str, Any]:
    if status == "unhealthy":
        response.status_code = 503
    uptime = (now() - lab.started_at).total_seconds()
    return {"status": status, "uptime_seconds": round(uptime, 1), "timestamp": time.time()}


def _flat(metrics: SystemMetrics) -> FlatMetrics:
    return FlatMetrics.model_validate(metrics, from_attributes=True)
