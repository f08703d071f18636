"""What a process knows of itself without a lab: calls of its monitored functions and a fresh look at the machine.

Nothing heavy is loaded before it is needed: a notebook that only times functions loads no database and no Prometheus.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any

from ai_lab.errors import InvalidRequest
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.slot import OperationSlot

if TYPE_CHECKING:
    from ai_lab.telemetry.machine.sampler import Snapshot, SourceStatus

_SLOT_SECONDS = 300
_SLOTS = 24 * 12
_MOST_VALUES = 500
#: Without persistence mode the driver is started anew each time, which takes up to three seconds.
_DRIVER_SECONDS = 5.0


class LocalTelemetry:
    """Calls in slots of five minutes for a day, and in total since the process began. Safe for several threads."""

    def __init__(self) -> None:
        self._operations = Operations(slot_seconds=_SLOT_SECONDS, most_waiting=_SLOTS)
        self._totals = OperationSlot()
        self._values: dict[str, dict[str, float]] = {}
        self._began = time.monotonic()
        self._lock = RLock()  # for the reason that Operations has one
        #: Of the last look at the machine, for Prometheus.
        self._snapshot: Snapshot | None = None
        self.statuses: dict[str, SourceStatus] = {}

    def function(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Count and time one call of a monitored function."""
        self._operations.record("function", name, seconds, failed=failed)
        with self._lock:
            timing = self._totals.timing("function", name)
            timing.durations.record(seconds)
            timing.failed += failed

    def value(self, name: str, value: float) -> None:
        """Keep a figure of the caller's own: count, sum, least, greatest and last.

        Raises:
            InvalidRequest: it is no finite number, or there are 500 names already.
        """
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise InvalidRequest("A metric's value must be a finite number.", param="value")
        with self._lock:
            if name not in self._values and len(self._values) >= _MOST_VALUES:
                raise InvalidRequest(f"At most {_MOST_VALUES} metrics of your own have room.", param="name")
            seen = self._values.setdefault(name, {"count": 0, "sum": 0.0, "min": number, "max": number})
            seen["count"] += 1
            seen["sum"] += number
            seen["min"], seen["max"] = min(seen["min"], number), max(seen["max"], number)
            seen["last"] = number

    async def sample(self) -> Snapshot:
        """Look at the machine for a quarter of a second, or for as long as a sleeping GPU driver takes to wake up.

        Raises:
            TimeoutError: it cannot be read.
        """
        from ai_lab.telemetry.machine.gpu import GpuReader  # noqa: PLC0415 - see above
        from ai_lab.telemetry.machine.sampler import Sampler  # noqa: PLC0415 - see above

        sampler = Sampler(interval_seconds=60, gpus=GpuReader(timeout_seconds=_DRIVER_SECONDS))
        await sampler.start()
        try:
            self._snapshot = await sampler.first(timeout_seconds=_DRIVER_SECONDS + 5)
        finally:
            self.statuses = sampler.statuses
            await sampler.close()
        return self._snapshot

    async def summary(self, hours: float) -> dict[str, Any]:
        """Return what ``GET /performance/summary`` would, of this process alone, and ``recorded``: its own figures.

        Calls are kept in slots of five minutes for a day; the window begins at the edge of one.

        Raises:
            InvalidRequest: no such window.
        """
        from ai_lab.telemetry.operations.summary import check_hours, summarize  # noqa: PLC0415 - see above
        from ai_lab.telemetry.operations.window import live_window  # noqa: PLC0415 - see above

        check_hours(hours)
        snapshot = await self.sample()
        uptime_seconds, end = time.monotonic() - self._began, time.time()
        window = live_window(self._operations.readable(), _SLOT_SECONDS, end - hours * 3600, end)
        window = replace(window, covered_seconds=min(uptime_seconds, window.end - window.start))
        found = summarize(window, uptime_seconds=uptime_seconds, current_metrics=snapshot.metrics)
        with self._lock:
            recorded = {name: dict(seen) for name, seen in self._values.items()}
        return found.model_dump(mode="json", by_alias=True) | {"recorded": recorded}

    def exposition(self) -> str:
        """Return the calls since the process began, and the last look at the machine, in Prometheus' text format."""
        from ai_lab.telemetry.prometheus.families import FAMILIES, PREFIX  # noqa: PLC0415 - see above
        from ai_lab.telemetry.prometheus.host_collector import HostCollector  # noqa: PLC0415 - see above
        from ai_lab.telemetry.prometheus.registry import Registry  # noqa: PLC0415 - see above

        registry = Registry()
        calls, failures = registry.number("function_calls_total"), registry.number("function_failures_total")
        durations = registry.histogram("function_duration_seconds")
        bounds = FAMILIES[PREFIX + "function_duration_seconds"].buckets
        with self._lock:
            for (_, name), timing in self._totals.timings.items():
                counted = timing.durations.count
                calls(name).inc(counted)
                failures(name).inc(timing.failed)
                # Steps of the histogram are met within 2 %.
                at_most = [*(timing.durations.count_up_to(bound) for bound in bounds), counted]
                durations(name).fill(at_most, timing.durations.sum)
        registry.register(HostCollector(self, interval_seconds=60))
        return "".join(registry.text(openmetrics=False))

    def latest(self) -> Snapshot | None:
        """Return the last look at the machine."""
        return self._snapshot


#: Of this process. Always there, so that a notebook without a lab has its figures.
local = LocalTelemetry()
