"""The operations of a summary in one list: requests, models, the database, monitored functions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ai_lab.telemetry.operations.summary_schemas import Durations, PerformanceSummary

#: Programs that watch the lab ask for these all the time; what people do would drown among them.
WATCHING = re.compile(r"/(metrics|health|performance)(/|$)")


@dataclass(frozen=True)
class Operation:
    """What was done how often, and how long it took."""

    name: str
    count: int
    errors: int
    durations: Durations


def requests(performance: PerformanceSummary) -> list[Operation]:
    """Return the endpoints, the one that took most time of all first, without those that watch the lab."""
    return [
        Operation(one.name, one.count, one.errors, one)
        for one in performance.http.by_route
        if not WATCHING.match(one.route)
    ]


def models(performance: PerformanceSummary) -> list[Operation]:
    """Return the models, the one that took most time of all first."""
    return [
        Operation(f"{one.provider}/{one.model}", one.requests, one.failures, one.duration)
        for one in performance.llm.by_model
    ]


def slowest(performance: PerformanceSummary) -> list[Operation]:
    """Return everything, the operation with the highest 95th percentile first."""
    others = [
        Operation(f"{one.kind} {one.name}", one.count, one.errors, one)
        for one in (*performance.database, *performance.functions)
    ]
    everything = [*requests(performance), *models(performance), *others]
    return sorted(everything, key=lambda one: one.durations.p95_ms or 0, reverse=True)
