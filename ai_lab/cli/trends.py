"""What was seen over the last minutes, as series of values."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from ai_lab.cli.counters import Counters, Rates, rates
from ai_lab.cli.reading import Reading
from ai_lab.telemetry.schemas import SystemMetrics

KEPT = 512  # more than a terminal is wide
Series = deque[float | None]


class Trends:
    """Grows with every reading. A look without an answer leaves a gap in every series."""

    def __init__(self) -> None:
        self.rates = Rates()
        self._series: dict[str, Series] = {}
        self._counters: Counters | None = None
        self._sampled_at: datetime | None = None

    def of(self, name: str) -> Series:
        """Return a series, oldest value first; empty where there was never a value."""
        return self._series.get(name, deque())

    def add(self, reading: Reading) -> None:
        """Take over what is new in a reading: the machine only where it was sampled since the last one."""
        if reading.metrics and reading.metrics.timestamp != self._sampled_at:
            self._sampled_at = reading.metrics.timestamp
            for name, value in machine_values(reading.metrics).items():
                self._append(name, value)
        if reading.counters:
            self.rates = rates(self._counters, reading.counters)
            self._counters = reading.counters
            self._append("requests", self.rates.requests)
            self._append("tokens", self.rates.tokens)

    def add_gap(self) -> None:
        """Take down that nothing was to be seen."""
        self.rates, self._counters = Rates(), None
        for series in self._series.values():
            series.append(None)

    def remember(self, past: Mapping[str, Sequence[float | None]]) -> None:
        """Put what the server remembers before what was seen here."""
        for name, values in past.items():
            self._series[name] = deque([*values, *self.of(name)], maxlen=KEPT)

    def _append(self, name: str, value: float | None) -> None:
        self._series.setdefault(name, deque(maxlen=KEPT)).append(value)


def machine_values(metrics: SystemMetrics) -> dict[str, float | None]:
    """Return the values of a sample that have a series; rates in bytes per second, the others in percent."""
    values: dict[str, float | None] = {
        "cpu": metrics.cpu_usage_percent,
        "memory": metrics.memory_usage_percent,
        "disk": sum(disk.read_bytes_per_second + disk.write_bytes_per_second for disk in metrics.disks),
        "network": sum(one.receive_bytes_per_second + one.transmit_bytes_per_second for one in metrics.network),
    }
    values |= {f"core{number}": value for number, value in enumerate(metrics.cpu.per_core_percent or [])}
    return values | {f"gpu{gpu.index}": gpu.utilization_percent for gpu in metrics.gpus}
