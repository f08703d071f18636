"""Is everything there that a turn needs? Each component is asked with a time limit; no check spends a token."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from ai_lab.clock import monotonic_ms, now
from ai_lab.database import Database
from ai_lab.errors import LabError
from ai_lab.providers import Providers

T = TypeVar("T")
HealthStatus = Literal["healthy", "degraded", "unhealthy"]

_LIMIT_SECONDS = 2.0
_LOW_DISK_BYTES = 1024**3
#: SQLite 3.7.0 to 3.51.2 can damage a database when two connections checkpoint at the same instant; AI Lab has one
#: writer, which leaves an outside program as the only second one.
_SAFE_SQLITE = (3, 51, 3)


class ComponentHealth(BaseModel):
    """One component: what was seen and, where something is wrong, what to do."""

    component: str
    status: HealthStatus
    detail: str
    latency_ms: float | None = None
    checked_at: datetime
    remedy: str | None = None


class HealthReport(BaseModel):
    """All components; the status of the whole is unhealthy only where the database is, for nothing works then."""

    status: HealthStatus
    components: list[ComponentHealth]


class Health:
    """Checks the database, the providers and the disk."""

    def __init__(self, database: Database, providers: Providers, data_dir: Path) -> None:
        self._database = database
        self._providers = providers
        self._data_dir = data_dir

    async def database(self) -> ComponentHealth:
        """Return whether the database can be read."""
        started_ms = monotonic_ms()
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                await self._database.ping()
        except (LabError, TimeoutError) as error:
            detail = error.detail if isinstance(error, LabError) else f"no answer in {_LIMIT_SECONDS:g} s"
            remedy = "See that the database runs and that its disk has room and may be written."
            return _component("database", "unhealthy", detail, started_ms, remedy)
        return _component("database", "healthy", self._database.url.get_backend_name(), started_ms)

    async def report(self) -> HealthReport:
        """Return the state of every component."""
        database, disk, providers = await asyncio.gather(self.database(), self._disk(), self._all_providers())
        components = [database, *self._sqlite(), disk, *providers]
        status: HealthStatus = "healthy"
        if any(component.status != "healthy" for component in components):
            status = "degraded"
        return HealthReport(status="unhealthy" if database.status == "unhealthy" else status, components=components)

    async def _disk(self) -> ComponentHealth:
        started_ms = monotonic_ms()
        free = (await asyncio.to_thread(shutil.disk_usage, _existing(self._data_dir))).free
        detail = f"{free / 1024**3:.1f} GiB free at {self._data_dir}"
        if free >= _LOW_DISK_BYTES:
            return _component("disk", "healthy", detail, started_ms)
        return _component("disk", "degraded", detail, started_ms, "Free some space: at 0 nothing can be saved.")

    def _sqlite(self) -> list[ComponentHealth]:
        if not self._database.is_sqlite or sqlite3.sqlite_version_info >= _SAFE_SQLITE:
            return []
        detail = f"SQLite {sqlite3.sqlite_version}: before 3.51.3 a second program that writes can damage a database"
        remedy = "Let no other program write the file while the server runs; a newer Python brings a newer SQLite."
        # No reason to call the lab degraded: with its single writer the fault cannot happen.
        return [_component("sqlite_library", "healthy", detail, monotonic_ms(), remedy)]

    async def _all_providers(self) -> list[ComponentHealth]:
        started_ms = monotonic_ms()
        checks = await _within(self._providers.checks())
        if checks is None:
            return [_component("providers", "degraded", f"no answer in {_LIMIT_SECONDS:g} s", started_ms)]
        components = []
        for name, check in checks.items():
            # A service that nobody started is no fault of the lab: only the embedded engine comes with it.
            status: HealthStatus = "healthy" if check.reachable or name != "embedded" else "degraded"
            components.append(
                ComponentHealth(
                    component=f"provider:{name}",
                    status=status,
                    detail=check.detail if check.reachable else f"not reachable: {check.detail}",
                    latency_ms=check.latency_ms,
                    checked_at=now(),
                    remedy=check.remedy,
                )
            )
        return components


async def _within(work: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            return await work
    except TimeoutError:
        return None


def _component(
    name: str, status: HealthStatus, detail: str, started_ms: float, remedy: str | None = None
) -> ComponentHealth:
    return ComponentHealth(
        component=name,
        status=status,
        detail=detail,
        latency_ms=round(monotonic_ms() - started_ms, 2),
        checked_at=now(),
        remedy=remedy,
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
