"""The one background sampler: reads the machine and its GPUs at a steady pace, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from ai_lab.clock import now
from ai_lab.telemetry.machine.host import READ_ERRORS, SLOW_SECONDS, Counters, HostReader, HostReading
from ai_lab.telemetry.machine.rates import counters, derive, is_continuous
from ai_lab.telemetry.schemas import GpuBackend, GpuMetrics, SystemMetrics

_log = logging.getLogger(__name__)
THREAD_NAME = "ai-lab-sampler"
_FIRST_INTERVAL_SECONDS = 0.25
_CLOSE_SECONDS = 2.0

Source = Literal["host", "gpu"]


class GpuReader(Protocol):
    """Reads all GPUs; it never raises, logs what it finds, and bounds its own time, for a driver may hang."""

    def read(self, *, with_processes: bool) -> tuple[list[GpuMetrics], GpuBackend]:
        """Return the GPUs and where their figures come from.

        Args:
            with_processes: ask for what is slow to ask for too: processes, fans.
        """

    def close(self) -> None:
        """Let go of the driver."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine over the time since the last snapshot.

    Attributes:
        taken_at: by the wall clock, in UTC.
        monotonic_seconds: ``time.monotonic()`` at the same moment.
        counters: raw cumulative values.
        metrics: what they come to; whoever passes them on fills in ``sample_age_seconds``.
        is_continuous: nothing is missing between this one and the last: it is not the first, and neither was the
            clock set nor did the machine sleep.
    """

    taken_at: datetime
    monotonic_seconds: float
    counters: Counters
    metrics: SystemMetrics
    is_continuous: bool


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How reading one source goes: time of the last success (Unix seconds), its duration, failures by error type."""

    last_success_at: float | None = None
    duration_seconds: float | None = None
    errors: dict[str, int] = field(default_factory=dict)


class Sampler:
    """Takes snapshots from ``start`` to ``close``; a source that fails is asked again at the next one.

    Args:
        interval_seconds: time between two snapshots. Readings that take longer skip some, they do not shift the rest.
        gpus: is closed with the sampler.
        root: where Linux keeps ``proc`` and ``sys``.
        wall_clock: returns the time, aware, in UTC.
    """

    def __init__(
        self,
        *,
        interval_seconds: float,
        gpus: GpuReader,
        root: Path = Path("/"),
        wall_clock: Callable[[], datetime] = now,
    ) -> None:
        self.statuses: dict[str, SourceStatus] = {"host": SourceStatus(), "gpu": SourceStatus()}
        self._interval_seconds = interval_seconds
        self._gpus = gpus
        self._gpu_processes_read_at = -math.inf
        self._host = HostReader(root, wall_clock=wall_clock)
        self._reading: HostReading | None = None
        self._latest: Snapshot | None = None
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._failing: set[str] = set()
        self._stop = threading.Event()
        self._has_snapshot = asyncio.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Begin; the first snapshot is there a quarter of a second later, for shares need two readings."""
        # A daemon: a call to the system that never returns must not keep the program from ending.
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name=THREAD_NAME, daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End; a reading under way is waited for, but not for long."""
        self._stop.set()
        if self._thread:
            await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)

    def latest(self) -> Snapshot | None:
        """Return the newest snapshot; None before the first."""
        return self._latest

    async def first(self, timeout_seconds: float = 2.0) -> Snapshot:
        """Return the newest snapshot, waiting for the first.

        Raises:
            TimeoutError: there is none after so long.
        """
        async with asyncio.timeout(timeout_seconds):
            while (snapshot := self._latest) is None:
                await self._has_snapshot.wait()
        return snapshot

    def add_listener(self, listener: Callable[[Snapshot], None]) -> None:
        """Call ``listener`` in the event loop after every snapshot."""
        self._listeners.append(listener)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be the thread."""
        started = time.monotonic()
        self._take(loop)
        wait = min(_FIRST_INTERVAL_SECONDS, self._interval_seconds)
        while not self._stop.wait(wait):
            self._take(loop)
            moment = time.monotonic()
            wait = next_tick(started, self._interval_seconds, moment) - moment
        self._gpus.close()

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a snapshot, or only a reading where there is none to compare it with."""
        try:
            began = time.perf_counter()
            reading = self._host.read()
            duration_seconds = time.perf_counter() - began
            earlier, self._reading = self._reading, reading
            metrics = derive(earlier, reading, *self._read_gpus()) if earlier else None
        except READ_ERRORS as error:
            self._failed("anything", type(error).__name__, str(error))
            return
        self._succeeded("host", duration_seconds)
        self._failing &= reading.faults.keys()
        for part, error_type in reading.faults.items():
            self._failed(part, error_type, "the other parts go on")
        if earlier is None or metrics is None:
            return
        previous = self._latest
        snapshot = Snapshot(
            taken_at=reading.taken_at,
            monotonic_seconds=reading.monotonic_seconds,
            counters=counters(reading, previous.counters if previous else None),
            metrics=metrics,
            is_continuous=previous is not None and is_continuous(earlier, reading),
        )
        self._latest = snapshot
        try:
            loop.call_soon_threadsafe(self._publish, snapshot)
        except RuntimeError:  # the loop was closed, and with it everybody who would listen
            self._stop.set()

    def _publish(self, snapshot: Snapshot) -> None:
        self._has_snapshot.set()
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener, snapshot)  # one that fails does not stop the others

    def _read_gpus(self) -> tuple[list[GpuMetrics], GpuBackend]:
        began, moment = time.perf_counter(), time.monotonic()
        with_processes = moment - self._gpu_processes_read_at >= SLOW_SECONDS
        if with_processes:
            self._gpu_processes_read_at = moment
        gpus, backend = self._gpus.read(with_processes=with_processes)
        if backend.status in {"error", "no_permission"}:
            self._count("gpu", backend.status)
        else:
            self._succeeded("gpu", time.perf_counter() - began)
        return gpus, backend

    def _succeeded(self, source: Source, duration_seconds: float) -> None:
        self.statuses[source] = replace(
            self.statuses[source], last_success_at=time.time(), duration_seconds=duration_seconds
        )

    def _failed(self, part: str, error_type: str, detail: str) -> None:
        """Count a failure to read the machine, and log it unless the same part failed before."""
        self._count("host", error_type)
        if part not in self._failing:
            self._failing.add(part)
            _log.warning("cannot read %s of this machine (%s: %s); trying again", part, error_type, detail)

    def _count(self, source: Source, error_type: str) -> None:
        status = self.statuses[source]
        errors = status.errors | {error_type: status.errors.get(error_type, 0) + 1}
        self.statuses[source] = replace(status, errors=errors)


def next_tick(started: float, interval_seconds: float, moment: float) -> float:
    """Return the next moment of the schedule that is at least half an interval ahead.

    The schedule is ``started`` and every interval from there; a shorter rest than half would make for coarse figures.
    """
    return started + interval_seconds * math.ceil((moment - started) / interval_seconds + 0.5)
