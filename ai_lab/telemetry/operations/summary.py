"""``GET /performance/summary``: what a window of operations comes to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from ai_lab.errors import InvalidRequest
from ai_lab.telemetry.operations.histogram import DurationHistogram
from ai_lab.telemetry.operations.slot import PARTS, Kind, OperationSlot, Timing
from ai_lab.telemetry.operations.summary_schemas import (
    Durations,
    HttpFigures,
    LlmFigures,
    ModelFigures,
    OperationFigures,
    PerformanceSummary,
    RouteFigures,
    SlowestOperation,
    Spread,
    SummaryWindow,
    SystemFigures,
    TokenCounts,
    TokenRate,
)
from ai_lab.telemetry.operations.window import OperationWindow
from ai_lab.telemetry.schemas import SystemMetrics

__all__ = ["MOST_HOURS", "PerformanceSummary", "check_hours", "summarize", "system_figures"]

MOST_HOURS = 17_520.0
_SHARES = (0.5, 0.9, 0.95, 0.99)


class _Figures(Protocol):
    @property
    def mean(self) -> float: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...


class SystemHistory(Protocol):
    """The stored figures of the machine."""

    async def spread(self, metric: str, *, start: datetime, end: datetime) -> _Figures | None:
        """Return what the samples of this machine come to; None where there are none."""


def check_hours(hours: float) -> float:
    """Return the length of a window.

    Raises:
        InvalidRequest: it is none.
    """
    if not 0 < hours <= MOST_HOURS:
        raise InvalidRequest(f"hours must be more than 0 and at most {MOST_HOURS:g}, two years.", param="hours")
    return hours


async def system_figures(history: SystemHistory, start: datetime, end: datetime) -> SystemFigures:
    """Return the figures of the machine over a window. Raises what ``history`` raises."""
    return SystemFigures(
        cpu_usage_percent=await _spread(history, "cpu_usage_percent", start, end),
        memory_usage_percent=await _spread(history, "memory_usage_percent", start, end),
    )


def summarize(
    window: OperationWindow,
    *,
    uptime_seconds: float,
    current_metrics: SystemMetrics | None = None,
    system: SystemFigures | None = None,
) -> PerformanceSummary:
    """Return the whole answer. A window of many operations takes milliseconds: call it in a thread.

    Args:
        window: of ``OperationStore.window``.
        uptime_seconds: of this process.
        current_metrics: the newest sample of the machine.
        system: the machine over the window.
    """
    counts, end = window.counts, _moment(window.end)
    of_kind: dict[str, dict[str, Timing]] = {"http": {}, "database": {}, "provider": {}, "function": {}}
    for (kind, name), timing in counts.timings.items():
        of_kind.setdefault(kind, {})[name] = timing
    return PerformanceSummary(
        uptime_seconds=round(uptime_seconds, 3),
        current_metrics=current_metrics,
        timestamp=end,
        window=SummaryWindow(
            start=_moment(window.start),
            end=end,
            seconds=round(window.end - window.start, 3),
            coverage_percent=window.coverage_percent,
        ),
        system=system or SystemFigures(),
        http=_http(of_kind["http"]),
        database=_figures("database", of_kind["database"]),
        llm=_llm(of_kind["provider"], counts),
        functions=_figures("function", of_kind["function"]),
        slowest=[
            SlowestOperation(
                kind=cast("Kind", slow.kind),
                name=slow.name,
                duration_ms=_ms(slow.seconds) or 0.0,
                at=_moment(slow.at),
                trace_id=slow.trace_id or None,
            )
            for slow in sorted(counts.slowest, reverse=True)
        ],
    )


def _http(timings: dict[str, Timing]) -> HttpFigures:
    by_route = []
    for figures in _figures("http", timings):
        method, _, route = figures.name.partition(" ")
        by_route.append(RouteFigures(**figures.model_dump(), method=method, route=route))
    requests, errors = _totals(timings.values())
    return HttpFigures(requests=requests, errors=errors, error_rate=_rate(errors, requests), by_route=by_route)


def _llm(timings: dict[str, Timing], counts: OperationSlot) -> LlmFigures:
    calls = {name: timing for name, timing in timings.items() if not name.endswith(PARTS)}
    by_model = [_model(name, timing, timings, counts.counters) for name, timing in _by_weight(calls)]
    requests, failures = _totals(calls.values())
    return LlmFigures(
        requests=requests,
        failures=failures,
        failure_rate=_rate(failures, requests),
        tokens=TokenCounts(
            input=_tokens(counts.counters, "tokens_input "), output=_tokens(counts.counters, "tokens_output ")
        ),
        by_model=by_model,
    )


def _model(name: str, calls: Timing, timings: dict[str, Timing], counters: dict[str, float]) -> ModelFigures:
    provider, _, model = name.partition("/")
    requests, failures = _totals([calls])
    first_token, output_token = (timings.get(name + part) for part in PARTS)
    return ModelFigures(
        provider=provider,
        model=model,
        requests=requests,
        failures=failures,
        failure_rate=_rate(failures, requests) or 0.0,
        duration=Durations(**_durations(calls.durations)),
        first_token=Durations(**_durations(first_token.durations)) if first_token else None,
        decode_tokens_per_second=_token_rate(output_token.durations) if output_token else None,
        tokens=TokenCounts(
            input=round(counters.get(f"tokens_input {name}", 0)), output=round(counters.get(f"tokens_output {name}", 0))
        ),
    )


def _figures(kind: Kind, timings: dict[str, Timing]) -> list[OperationFigures]:
    """Return the figures of each operation, the one that took most time of all first."""
    figures = []
    for name, timing in _by_weight(timings):
        count, errors = _totals([timing])
        figures.append(
            OperationFigures(
                kind=kind,
                name=name,
                count=count,
                errors=errors,
                error_rate=_rate(errors, count) or 0.0,
                **_durations(timing.durations),
            )
        )
    return figures


def _by_weight(timings: dict[str, Timing]) -> list[tuple[str, Timing]]:
    return sorted(timings.items(), key=lambda pair: (-pair[1].durations.sum, pair[0]))


def _durations(durations: DurationHistogram) -> dict[str, Any]:
    count = durations.count
    p50, p90, p95, p99 = map(_ms, durations.quantiles(_SHARES))
    return {
        "mean_ms": _ms(durations.sum / count) if count else None,
        "min_ms": _ms(durations.minimum) if count else None,
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": _ms(durations.maximum) if count else None,
    }


def _token_rate(seconds_per_token: DurationHistogram) -> TokenRate:
    typical, slow = seconds_per_token.quantiles((0.5, 0.95))
    return TokenRate(p50=_significant(1 / typical) if typical else None, p05=_significant(1 / slow) if slow else None)


def _totals(timings: Iterable[Timing]) -> tuple[int, int]:
    found = [(timing.durations.count, timing.failed) for timing in timings]
    return sum(count for count, _ in found), sum(failed for _, failed in found)


def _tokens(counters: dict[str, float], prefix: str) -> int:
    return round(sum(amount for name, amount in counters.items() if name.startswith(prefix)))


async def _spread(history: SystemHistory, metric: str, start: datetime, end: datetime) -> Spread | None:
    found = await history.spread(metric, start=start, end=end)
    return Spread(avg=round(found.mean, 2), min=found.min, max=found.max) if found else None


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else _significant(seconds * 1000)


def _significant(value: float) -> float:
    """Return six digits: more would be noise."""
    return float(f"{value:.6g}")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
