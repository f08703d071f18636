"""Everything a server tells about itself, asked for at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ai_lab.cli.counters import Counters, read_counters
from ai_lab.client import AsyncLabClient
from ai_lab.clock import now
from ai_lab.errors import LabError, ServerUnreachable
from ai_lab.telemetry.operations.summary_schemas import PerformanceSummary
from ai_lab.telemetry.schemas import SystemMetrics

T = TypeVar("T")
LIMIT_SECONDS = 10.0


class Component(BaseModel):
    """The state of a part of the lab."""

    model_config = ConfigDict(extra="allow")  # what else a server tells is for programs

    component: str
    status: str
    detail: str
    latency_ms: float | None = None
    remedy: str | None = None


class Health(BaseModel):
    """The state of the lab: healthy, degraded or unhealthy."""

    model_config = ConfigDict(extra="allow")

    status: str
    version: str
    uptime_seconds: float
    components: list[Component]


@dataclass(frozen=True)
class Reading:
    """One look at a server. A part that could not be had is None, and ``missing`` says why."""

    health: Health
    metrics: SystemMetrics | None = None
    performance: PerformanceSummary | None = None
    models: list[dict[str, Any]] | None = None
    counters: Counters | None = None
    missing: dict[str, str] = field(default_factory=dict)
    taken_at: datetime = field(default_factory=now)


async def look(client: AsyncLabClient, *, with_models: bool = False, with_counters: bool = False) -> Reading:
    """Ask for everything; only a server that does not even tell its health is an error.

    Raises:
        LabError: no server answers, or what answers is no AI Lab.
    """
    missing: dict[str, str] = {}
    health, metrics, performance, models = await asyncio.gather(
        client.health(),
        _part("metrics", client.metrics(), missing),
        _part("performance", client.performance_summary(hours=1), missing),
        _part("models", client.models(), missing) if with_models else _nothing(),
    )
    # Afterwards, so that of our own requests only this one is among those under way.
    exposition = await _part("counters", client.exposition(), missing) if with_counters else None
    counters = None if exposition is None else read_counters(exposition, time.monotonic())
    return Reading(_read_health(health), metrics, performance, models, counters, missing)


def _read_health(said: dict[str, Any]) -> Health:
    try:
        return Health.model_validate(said)
    except ValidationError as reason:
        raise ServerUnreachable("What answers is not this version of AI Lab.") from reason


async def _part(name: str, answer: Awaitable[T], missing: dict[str, str]) -> T | None:
    try:
        return await answer
    except LabError as error:
        missing[name] = error.detail
        return None


async def _nothing() -> None:
    return None
