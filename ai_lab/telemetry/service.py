"""Telemetry as a whole: built for one lab, started and stopped with it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from ai_lab.clock import now
from ai_lab.database import Database, instances
from ai_lab.errors import DatabaseUnavailable, MetricsUnavailable
from ai_lab.settings import Settings
from ai_lab.telemetry.health import Health
from ai_lab.telemetry.history.retention import Retention
from ai_lab.telemetry.history.series import values_of
from ai_lab.telemetry.history.service import History
from ai_lab.telemetry.machine.gpu import GpuReader
from ai_lab.telemetry.machine.sampler import Sampler, Snapshot
from ai_lab.telemetry.operations.monitor import subscribe, unsubscribe
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.store import OperationStore
from ai_lab.telemetry.operations.summary import PerformanceSummary, check_hours, summarize, system_figures
from ai_lab.telemetry.prometheus.exposition import Exposition
from ai_lab.telemetry.prometheus.host_collector import HostCollector
from ai_lab.telemetry.prometheus.instruments import Instruments
from ai_lab.telemetry.schemas import SystemMetrics

#: One batch: what a kill may cost of samples and counts.
BATCH_SECONDS = 30.0
_PURGE_SECONDS = 600.0
_LAG_LOOK_SECONDS = 0.5
_LAG_LOOKS = 30  # so that a scrape every 15 s misses no delay

logger = logging.getLogger(__name__)


class Telemetry:
    """Samples the machine, keeps what was measured and counted, and answers from it.

    Args:
        settings: what is sampled how often and kept how long.
        database: where it is kept.
        operations: what ``instruments`` report to.
        instruments: made before the database and the providers, which report to them.
        instance_id: of this process among those that use the database.
    """

    def __init__(
        self, settings: Settings, database: Database, operations: Operations, instruments: Instruments, instance_id: str
    ) -> None:
        # One machine has one history, whatever it is called today; only a shared database has to tell machines apart.
        host = "" if database.is_sqlite else socket.gethostname()
        self.instruments = instruments
        self.history = History(database, host=host, retention=Retention.of(settings))
        self.exposition = Exposition(instruments.registry)
        self._database = database
        self._instance_id = instance_id
        self._store = OperationStore(operations, database)
        self._sampler: Sampler | None = None
        if settings.enable_metrics:
            interval_seconds = settings.metrics_interval_seconds
            self._sampler = Sampler(interval_seconds=interval_seconds, gpus=GpuReader())
            self._sampler.add_listener(self._remember)
            instruments.registry.register(
                HostCollector(self._sampler, interval_seconds=interval_seconds, shows_host=settings.metrics_host)
            )
        instruments.database_connections(database.connections_in_use)
        self._remembers = False
        self._failing: set[str] = set()
        self._kept_at = time.monotonic()
        self._purge_at = time.monotonic() + BATCH_SECONDS
        self._started = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, health: Health) -> None:
        """Begin to sample and to keep; ``health`` is looked at with every batch and shown to Prometheus."""
        if self._sampler:
            await self._sampler.start()
        subscribe(self.instruments)
        # Apart from each other: a database that hangs must not keep the health gauges from saying so.
        work = (self._keep_up(), self._watch_health(health), self._watch_loop())
        self._tasks = [asyncio.create_task(one) for one in work]
        for task in self._tasks:
            task.add_done_callback(_report)

    async def close(self) -> None:
        """Stop, and keep what was measured up to now."""
        unsubscribe(self.instruments)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._sampler:
            await self._sampler.close()
        with suppress(DatabaseUnavailable):
            await self._store.flush(everything=True)
            await self.history.flush()

    def latest(self) -> Snapshot | None:
        """Return the newest sample; None before the first, or where sampling is switched off."""
        return self._sampler.latest() if self._sampler else None

    def behind_seconds(self) -> float:
        """Return how long ago samples and counts were last kept; more than some batches mean that they cannot be."""
        return time.monotonic() - self._kept_at

    @property
    def is_sampling(self) -> bool:
        """Return whether the machine is sampled."""
        return self._sampler is not None

    def latest_metrics(self) -> SystemMetrics | None:
        """Return the newest sample with its age, or None as ``latest`` does."""
        snapshot = self.latest()
        return _aged(snapshot) if snapshot else None

    async def system_metrics(self) -> SystemMetrics:
        """Return the newest sample with its age, waiting for the first one after a start.

        Raises:
            MetricsUnavailable: sampling is switched off, or this machine cannot be read.
        """
        if self._sampler is None:
            raise MetricsUnavailable("Sampling is switched off. Set ENABLE_METRICS=true and start the server again.")
        try:
            return _aged(await self._sampler.first())
        except TimeoutError:
            raise MetricsUnavailable(
                "This machine could not be read yet; the log says why. Ask again in a moment.", retry_after_seconds=5
            ) from None

    async def summary(self, hours: float) -> PerformanceSummary:
        """Return counts, errors and percentiles of all operations over the last ``hours``, and the machine's figures.

        Raises:
            InvalidRequest: ``hours`` is no length of a window.
        """
        end = time.time()
        window = await self._store.window(end - check_hours(hours) * 3600, end)
        system = await system_figures(self.history, _moment(window.start), _moment(window.end))
        return await asyncio.to_thread(
            summarize,
            window,
            uptime_seconds=time.monotonic() - self._started,
            current_metrics=self.latest_metrics(),
            system=system,
        )

    def _remember(self, snapshot: Snapshot) -> None:
        # The first one covers too short a time; and where the clock was set, a gap is truer than a figure.
        if self._remembers and snapshot.is_continuous:
            self.history.add(snapshot.taken_at, values_of(snapshot.metrics))

    async def _keep_up(self) -> None:
        while True:
            await self._supervised(self._keep_batch)
            await self._supervised(self._purge_if_due)
            await asyncio.sleep(BATCH_SECONDS)

    async def _watch_health(self, health: Health) -> None:
        while True:
            await self._supervised(lambda: self._look_at(health))
            await asyncio.sleep(BATCH_SECONDS)

    async def _supervised(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do one piece of work; whatever stops it is said once, and the next round tries again."""
        try:
            await work()
        except DatabaseUnavailable as error:
            if not self._failing:
                logger.warning("samples and counts wait for the database: %s", error.detail)
            self._failing.add(error.code)
        except Exception as error:  # nothing else would restart this task
            if type(error).__name__ not in self._failing:
                logger.exception("telemetry could not keep up; it tries again")
            self._failing.add(type(error).__name__)

    async def _keep_batch(self) -> None:
        async with self._database.reading() as db:
            self._remembers = await instances.is_first_on_host(db, self._instance_id)
        await self._store.flush()
        await self.history.roll_up(now())
        self.instruments.database_size(await self._database.size_bytes())
        self._failing.clear()
        self._kept_at = time.monotonic()

    async def _purge_if_due(self) -> None:
        """Also where nothing more can be written: what is deleted may be what a full disk lacks."""
        if time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + _PURGE_SECONDS
        await self._store.roll_up(time.time())
        await self.history.purge(now())
        await self._store.purge(time.time())

    async def _look_at(self, health: Health) -> None:
        report = await health.report()
        self.instruments.health({one.component: one.status for one in report.components})

    async def _watch_loop(self) -> None:
        """Measure how late the event loop comes back to something that should have run at once."""
        delays: deque[float] = deque(maxlen=_LAG_LOOKS)
        while True:
            expected = time.monotonic() + _LAG_LOOK_SECONDS
            await asyncio.sleep(_LAG_LOOK_SECONDS)
            delays.append(max(0.0, time.monotonic() - expected))
            self.instruments.event_loop_lag(max(delays))


def _aged(snapshot: Snapshot) -> SystemMetrics:
    age = round(time.monotonic() - snapshot.monotonic_seconds, 3)
    return snapshot.metrics.model_copy(update={"sample_age_seconds": age})


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _report(task: asyncio.Task[None]) -> None:
    """Say what ended a task that should never end; a silent one would be missed by nobody."""
    if not task.cancelled() and (error := task.exception()):
        logger.error("telemetry stopped keeping up", exc_info=error)
