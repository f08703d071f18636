"""Is everything there that a turn needs? Each component is asked with a time limit; no check spends a token.

Unhealthy means that nothing can be answered: the database is gone or has another version's tables. Degraded means
that something is missing or running short while the rest goes on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from ai_lab.clock import monotonic_ms, now
from ai_lab.database import Database
from ai_lab.errors import LabError
from ai_lab.providers import Providers
from ai_lab.telemetry.machine.sampler import Snapshot

HealthStatus = Literal["healthy", "degraded", "unhealthy"]

LIMIT_SECONDS = 2.0
_KEPT_SECONDS = 5.0
_LOW_DISK_BYTES = 1024**3
_FULL_MEMORY_PERCENT = 95.0
_HOT_GPU_CELSIUS = 85.0  # as the alert AILabGpuHot
#: SQLite 3.7.0 to 3.51.2 can damage a database when two connections checkpoint at the same instant; AI Lab has one
#: writer, which leaves an outside program as the only second one.
_SAFE_SQLITE = (3, 51, 3)
#: Three batches without success.
_LATE_SECONDS = 100.0
_OTHER_REMEDY = "The log has the details."
_DATABASE_REMEDY = "See that the database runs and that its disk has room and may be written."


logger = logging.getLogger(__name__)


class ComponentHealth(BaseModel):
    """One component: what was seen and, where something is wrong, what to do."""

    component: str
    status: HealthStatus
    detail: str
    observed_value: float | None = Field(default=None, description="What was measured, in `observed_unit`.")
    observed_unit: str | None = None
    latency_ms: float | None = Field(default=None, description="How long the check took.")
    checked_at: datetime
    remedy: str | None = None


class HealthReport(BaseModel):
    """All components and what they come to."""

    status: HealthStatus
    components: list[ComponentHealth]


@dataclass(frozen=True)
class _Seen:
    """What one check found, before its time is known."""

    component: str
    status: HealthStatus
    detail: str
    value: float | None = None
    unit: str | None = None
    remedy: str | None = None
    latency_ms: float | None = None


class Health:
    """Asks every component, all at once, and keeps the answer for five seconds: a storm of probes costs one check.

    Args:
        newest_revision: of the migrations that this program has.
        latest: the newest sample of the machine; None as a whole where sampling is switched off.
        behind_seconds: how long ago samples and counts were last kept in the database.
        interval_seconds: time between two samples.
        vault: returns where the vault's key comes from, and why it is sealed with the remedy, where it is.
        breakers: returns ``provider/model`` of each breaker that is not closed, and why it opened.
    """

    def __init__(
        self,
        database: Database,
        providers: Providers,
        data_dir: Path,
        *,
        newest_revision: str,
        latest: Callable[[], Snapshot | None] | None = None,
        behind_seconds: Callable[[], float] = lambda: 0.0,
        interval_seconds: float = 5.0,
        vault: Callable[[], tuple[str, str | None, str | None]] | None = None,
        breakers: Callable[[], Awaitable[Sequence[tuple[str, str]]]] | None = None,
    ) -> None:
        self._vault = vault
        self._breakers = breakers
        self._database = database
        self._providers = providers
        self._data_dir = data_dir
        self._newest_revision = newest_revision
        self._latest = latest
        self._behind_seconds = behind_seconds
        self._began = time.monotonic()
        self._looking_at_disk: asyncio.Future[int] | None = None
        self._interval_seconds = interval_seconds
        self._turn = asyncio.Lock()
        self._kept: tuple[float, HealthReport] | None = None

    async def database(self) -> ComponentHealth:
        """Return whether the database can be read and has the tables of this version; asks it each time."""
        return (await _checked("database", "unhealthy", self._check_database))[0]

    async def report(self) -> HealthReport:
        """Return the state of every component, at most five seconds old."""
        async with self._turn:
            if self._kept is None or time.monotonic() - self._kept[0] > _KEPT_SECONDS:
                self._kept = (time.monotonic(), await self._look())
            return self._kept[1]

    async def _look(self) -> HealthReport:
        found = await asyncio.gather(
            _checked("database", "unhealthy", self._check_database),
            _checked("disk", "degraded", self._check_disk),
            _checked("machine", "degraded", self._check_machine),
            _checked("vault", "degraded", self._check_vault),
            _checked("gateway", "degraded", self._check_gateway),
            _checked("providers", "degraded", self._check_providers),
        )
        components = [component for part in found for component in part]
        statuses = {component.status for component in components}
        worst: HealthStatus = "healthy"
        if statuses - {"healthy"}:
            worst = "unhealthy" if "unhealthy" in statuses else "degraded"
        return HealthReport(status=worst, components=components)

    async def _check_database(self) -> list[_Seen]:
        started_ms = monotonic_ms()
        revision = await self._database.ping()
        took_ms = round(monotonic_ms() - started_ms, 2)
        if revision != self._newest_revision:
            detail = f"its tables are of version {revision}, this program's of {self._newest_revision}"
            remedy = "Stop every AI Lab that uses this database, then start the newest one."
            return [_Seen("database", "unhealthy", detail, took_ms, "ms", remedy)]
        kind = self._database.url.get_backend_name()
        return [_Seen("database", "healthy", kind, took_ms, "ms"), *self._sqlite_library()]

    def _sqlite_library(self) -> list[_Seen]:
        if not self._database.is_sqlite or sqlite3.sqlite_version_info >= _SAFE_SQLITE:
            return []
        detail = f"SQLite {sqlite3.sqlite_version}: before 3.51.3 a second program that writes can damage a database"
        remedy = "Let no other program write the file while the server runs; a newer Python brings a newer SQLite."
        # No reason to call the lab degraded: with its single writer the fault cannot happen.
        return [_Seen("sqlite_library", "healthy", detail, remedy=remedy)]

    async def _check_disk(self) -> list[_Seen]:
        # A network disk can hang for good: one thread waits for it, however often we are asked.
        if self._looking_at_disk is None or self._looking_at_disk.done():
            self._looking_at_disk = asyncio.ensure_future(asyncio.to_thread(_free_bytes, self._data_dir))
        free = await asyncio.shield(self._looking_at_disk)
        detail = f"{free / 1024**3:.1f} GiB free at {self._data_dir}"
        if free >= _LOW_DISK_BYTES:
            return [_Seen("disk", "healthy", detail, free, "bytes")]
        return [_Seen("disk", "degraded", detail, free, "bytes", "Free some space: at 0 nothing can be saved.")]

    async def _check_machine(self) -> list[_Seen]:
        """Look at the newest sample and at how it is kept; nothing is measured here."""
        return [self._check_history(), *self._check_sample()]

    def _check_history(self) -> _Seen:
        behind = round(self._behind_seconds(), 1)
        if behind <= _LATE_SECONDS:
            return _Seen("history", "healthy", "samples and counts are kept", behind, "s")
        remedy = "The log says why. They wait in memory for the database, the oldest are lost after an hour."
        return _Seen("history", "degraded", f"nothing was kept for {behind:.0f} s", behind, "s", remedy)

    def _check_sample(self) -> list[_Seen]:
        if self._latest is None:
            return [_Seen("sampler", "healthy", "switched off by ENABLE_METRICS")]
        snapshot = self._latest()
        age = round(time.monotonic() - (snapshot.monotonic_seconds if snapshot else self._began), 1)
        late = age > 3 * self._interval_seconds + 2
        remedy = "The log says why; figures of the machine are old until then." if late else None
        if snapshot is None:
            return [_Seen("sampler", "degraded" if late else "healthy", "no sample yet", age, "s", remedy)]
        seen = [_Seen("sampler", "degraded" if late else "healthy", f"{age:g} s old", age, "s", remedy)]
        metrics = snapshot.metrics
        usage = metrics.memory.usage_percent
        full = usage >= _FULL_MEMORY_PERCENT
        remedy = (
            "Close a program, or choose a smaller model or context: the system may end processes." if full else None
        )
        detail = f"{usage:.0f} % of the {metrics.scope}'s memory is used"
        seen.append(_Seen("memory", "degraded" if full else "healthy", detail, usage, "percent", remedy))
        if metrics.gpu_backend.status in {"error", "no_permission"}:
            detail = metrics.gpu_backend.detail or metrics.gpu_backend.status
            remedy = "nvidia-smi shows whether the driver works, and whether this user may ask it."
            seen.append(_Seen("gpu", "degraded", detail, remedy=remedy))
        for gpu in metrics.gpus:
            celsius = gpu.temperature_celsius
            hot = celsius is not None and celsius >= _HOT_GPU_CELSIUS
            remedy = "See that its fans turn and that air gets in; it slows itself down." if hot else None
            status: HealthStatus = "degraded" if hot else "healthy"
            detail = gpu.name or "GPU"
            unit = None if celsius is None else "celsius"
            seen.append(_Seen(f"gpu:{gpu.index}", status, detail, celsius, unit, remedy))
        return seen

    async def _check_vault(self) -> list[_Seen]:
        """Say whether it is open and where its root key comes from; nothing is read or decrypted."""
        if self._vault is None:
            return []
        source, reason, remedy = self._vault()
        if reason is None:
            return [_Seen("vault", "healthy", f"open; root key from {source}")]
        return [_Seen("vault", "degraded", f"sealed: {reason}", remedy=remedy)]

    async def _check_gateway(self) -> list[_Seen]:
        """Say which models are left alone after failures; nothing is asked."""
        if self._breakers is None:
            return []
        held = await self._breakers()
        if not held:
            return [_Seen("gateway", "healthy", "no breaker is open", 0, "breakers")]
        detail = "left alone after failures: " + "; ".join(f"{name} ({reason})" for name, reason in held[:5])
        remedy = "They are tried again by themselves; GET /gateway/breakers says when, DELETE there tries at once."
        return [_Seen("gateway", "degraded", detail, len(held), "breakers", remedy)]

    async def _check_providers(self) -> list[_Seen]:
        seen = []
        for name, check in (await self._providers.checks(LIMIT_SECONDS)).items():
            # A service that nobody started is no fault of the lab: only the embedded engine comes with it.
            status: HealthStatus = "healthy" if check.reachable or name != "embedded" else "degraded"
            detail = check.detail if check.reachable else f"not reachable: {check.detail}"
            seen.append(_Seen(f"provider:{name}", status, detail, remedy=check.remedy, latency_ms=check.latency_ms))
        return seen


def _free_bytes(path: Path) -> int:
    folder = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(folder).free


async def _checked(
    name: str, if_failing: HealthStatus, check: Callable[[], Awaitable[list[_Seen]]]
) -> list[ComponentHealth]:
    """Run a check within its time limit; one that fails or is late is a finding too."""
    started_ms = monotonic_ms()
    remedy = _DATABASE_REMEDY if name == "database" else None
    try:
        async with asyncio.timeout(LIMIT_SECONDS + 0.5):
            seen = await check()
    except LabError as error:
        seen = [_Seen(name, if_failing, error.detail, remedy=remedy)]
    except TimeoutError:
        seen = [_Seen(name, if_failing, f"no answer in {LIMIT_SECONDS + 0.5:g} s", remedy=remedy)]
    except Exception as error:  # a probe that fails is a finding; it must not fail the answer
        logger.warning("the health check of the %s failed", name, exc_info=error)
        seen = [_Seen(name, if_failing, f"the check failed: {type(error).__name__}", remedy=remedy or _OTHER_REMEDY)]
    moment, took_ms = now(), round(monotonic_ms() - started_ms, 2)
    return [
        ComponentHealth(
            component=one.component,
            status=one.status,
            detail=one.detail,
            observed_value=one.value,
            observed_unit=one.unit,
            latency_ms=took_ms if one.latency_ms is None else one.latency_ms,
            checked_at=moment,
            remedy=one.remedy,
        )
        for one in seen
    ]
