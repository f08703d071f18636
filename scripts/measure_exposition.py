"""What rendering costs: our registry against prometheus_client, the same families in the same run.

prometheus_client gets its samples as finished objects, which it would have to make of its counters first: what is
printed for it is too little rather than too much.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from statistics import median

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ai_lab.telemetry import Instruments, Operations
from scripts.measurement import Row, report

_ROUNDS = 100


class _Parsed(Collector):
    def __init__(self, openmetrics: str) -> None:
        self._families = list(text_string_to_metric_families(openmetrics))  # type: ignore[no-untyped-call]  # no types

    def collect(self) -> Iterable[Metric]:
        return self._families


def main() -> int:
    """Measure and print; returns 1 where ours is no faster, for then it should go."""
    instruments = Instruments(Operations())
    for number in range(60):
        instruments.request_began()
        instruments.request_ended("GET", f"/route/{number}", 200, 0.02, 0.01, has_left=False)
        instruments.function(f"function {number}", 0.3)
    ours = instruments.registry
    text = "".join(ours.text(openmetrics=True))
    theirs = CollectorRegistry()
    theirs.register(_Parsed(text))
    rows = []
    for name, mine, other in (
        ("text", lambda: "".join(ours.text(openmetrics=False)), lambda: generate_latest(theirs)),
        ("OpenMetrics", lambda: "".join(ours.text(openmetrics=True)), lambda: generate_openmetrics(theirs)),  # type: ignore[no-untyped-call]  # no types
    ):
        own_ms, other_ms = _median_ms(mine), _median_ms(other)
        shown = f"{own_ms:.2f} ms against {other_ms:.2f} ms, {other_ms / own_ms:.1f} times"
        rows.append(
            Row(f"{name}, {text.count(chr(10))} lines: ours, prometheus_client's", shown, "faster", own_ms < other_ms)
        )
    return report("Rendering", rows)


def _median_ms(render: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        render()
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())
