"""The answer that earlier programs read of ``POST /benchmark/llm``, with honest figures beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.reports.figures import metric_of
from ai_lab.benchmarks.reports.requests import between_ms
from ai_lab.benchmarks.schemas import Cell, Estimate, Run


def earlier_shape(run: Run, records: Iterable[Record]) -> dict[str, Any]:
    """Return the run in the earlier shape.

    ``times`` are seconds from sending to the last token of each successful iteration, in the order of sending; failed
    ones are not among them but counted in ``failed``. With none that succeeded the earlier figures are None.
    """
    measured = [one for one in records if one.phase == "measured"]
    measured.sort(key=lambda one: (one.sent_ns or 0, one.index))
    good = [one for one in measured if one.status == "ok"]
    times = [ms / 1000 for one in good if (ms := between_ms(one.sent_ns, one.last_token_ns)) is not None]
    report = run.report
    cell = report.cells[0] if report and report.cells else None
    texts = run.plan.prompts.texts
    return {
        "model_name": run.plan.arms[0].model or run.plan.arm_names()[0],
        "prompt_length": len(texts[0]) if texts else None,
        "iterations": run.plan.load.requests,
        "times": times,
        "avg_time": sum(times) / len(times) if times else None,
        "min_time": min(times, default=None),
        "max_time": max(times, default=None),
        "total_time": sum(times),
        "failed": len(measured) - len(good),
        "failures": dict(cell.errors) if cell else {},
        "benchmark_id": run.id,
        "grade": report.grade if report else None,
        "reasons": [one.model_dump() for one in report.reasons] if report else [],
        "median_time": _seconds(cell, "median"),
        "p95_time": _seconds(cell, "p95"),
        "ttft_ms": _median(cell, "ttft"),
        "decode_tps": _median(cell, "decode_tps"),
        "prompt_tokens": cell.prompt_tokens_median if cell else None,
        "completion_tokens": cell.completion_tokens_median if cell else None,
    }


def _median(cell: Cell | None, name: str) -> dict[str, Any] | None:
    metric = metric_of(cell, name) if cell else None
    return metric.median.model_dump() if metric else None


def _seconds(cell: Cell | None, statistic: str) -> dict[str, Any] | None:
    metric = metric_of(cell, "e2e") if cell else None
    if metric is None:
        return None
    one: Estimate | None = metric.median if statistic == "median" else metric.percentiles.get(statistic)
    if one is None:
        return None
    scaled = {name: value / 1000 for name in ("value", "low", "high") if (value := getattr(one, name)) is not None}
    return one.model_copy(update=scaled).model_dump()
