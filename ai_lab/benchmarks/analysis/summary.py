"""From the raw records of a run to its report, whatever there is of them: also of a run that was cut short."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.bootstrap import mean_interval
from ai_lab.benchmarks.analysis.cells import CellData, cells_of, clusters_of, neighbours, seconds_of, sent_once
from ai_lab.benchmarks.analysis.contrasts import compare_arms
from ai_lab.benchmarks.analysis.energy import PowerHistory
from ai_lab.benchmarks.analysis.evidence import Evidence
from ai_lab.benchmarks.analysis.grading import grade
from ai_lab.benchmarks.analysis.intervals import percentile, percentile_intervals
from ai_lab.benchmarks.analysis.machine_figures import machine_of
from ai_lab.benchmarks.analysis.metrics import (
    FAILED,
    METRICS,
    Metric,
    adjusted_values,
    definitions,
    gaps_of,
    is_open,
    prefill_values,
    values_of,
)
from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.steadiness import stability_of
from ai_lab.benchmarks.analysis.totals import is_good, total_definitions, totals_of
from ai_lab.benchmarks.load.search import RateSearch
from ai_lab.benchmarks.plan import GoodputSearch, Plan
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Cell, Counts, Estimate, MetricResult, ReportBody, SearchStep

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_SHARES_OF_GAPS = {**_SHARES, "p99.9": 0.999}
_STALL_MEDIANS = 10
_MOST_TEXTS = 20  # of errors, and of notes
_SCHEDULED = {"ttft_sched", "e2e_sched"}


def analyse(data: RunData) -> ReportBody:
    """Compute everything that a report says from what a run left behind.

    Never fails for want of records: what cannot be computed is left out, and reasons say why.
    """
    cells = cells_of(data)
    once = sent_once(data)
    power = PowerHistory(data) if is_local(data) else None
    results, cached = [], {}
    for cell in cells:
        result, n_cached = _cell(cell, data, once, power)
        results.append(result)
        cached[cell.arm, cell.level_index] = n_cached
    steps, highest_rate = _search(data, cells)
    verdict, reasons = grade(Evidence(data, cells, results, steps, cached, power))
    return ReportBody(
        grade=verdict,
        reasons=reasons,
        cells=results,
        comparisons=compare_arms(cells, data.plan),
        search=steps,
        highest_rate=highest_rate,
        cold_load_seconds=_cold_loads(data),
        instrument=data.instrument,
        provenance=data.provenance,
        machine=machine_of(data),
        definitions=definitions() | total_definitions(),
        duration_seconds=sum(map(seconds_of, cells)) if cells else None,
    )


def is_local(data: RunData) -> bool:
    """Return whether every server under test is known to be on this machine, so that its energy is theirs."""
    targets = [data.provenance.get("targets", {}).get(name) or {} for name in data.plan.arm_names()]
    if any("is_local" in target for target in targets):
        return all(target.get("is_local", False) for target in targets)
    return any(sample.target_cpu_percent is not None for sample in data.samples)


def _cell(cell: CellData, data: RunData, once: set[str], power: PowerHistory | None) -> tuple[Cell, int]:
    stability = stability_of(cell, data.plan)
    kept = cell.records[stability.dropped_as_warmup :]
    metrics, n_cached = _metrics(cell, kept, data.plan, once)
    completed = cell.completed
    sources = Counter(record.token_source for record in completed if record.token_source)
    result = Cell(
        arm=data.plan.arm_names()[cell.arm],
        arm_index=cell.arm,
        level_index=cell.level_index,
        level=cell.level,
        level_kind="rate" if is_open(data.plan) else "concurrency",
        counts=Counts(**Counter(str(record.status) for record in cell.records)),
        metrics=metrics,
        totals=totals_of(cell, data.plan, power),
        stability=stability,
        prompt_tokens_median=_median([record.prompt_tokens for record in completed]),
        completion_tokens_median=_median([record.completion_tokens for record in completed]),
        token_source=" and ".join(sorted(sources)) or None,
        errors=_errors(cell),
        notes=_warming_up(stability.dropped_as_warmup)
        + [f"{note} ({often} times)" for note, often in _notes(cell).most_common(_MOST_TEXTS)],
    )
    return result, n_cached


def _warming_up(dropped: int) -> list[str]:
    if not dropped:
        return []
    said = "request was" if dropped == 1 else f"{dropped} requests were"
    return [f"the first {said} still warming up: no part of latencies and decode rates, only of totals and counts"]


def _errors(cell: CellData) -> dict[str, int]:
    """Return how often each error was met; texts that differ in every request are counted together."""
    failed = [record for record in cell.records if record.status in FAILED]
    errors = Counter(record.error or f"{record.status} without a reason" for record in failed)
    frequent = dict(errors.most_common(_MOST_TEXTS))
    others = errors.total() - sum(frequent.values())
    return frequent | {"other errors": others} if others else frequent


def _notes(cell: CellData) -> Counter[str]:
    return Counter(note for record in cell.records for note in record.notes)


def _median(counts: list[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return float(np.median(known)) if known else None


def _metrics(cell: CellData, records: list[Record], plan: Plan, once: set[str]) -> tuple[dict[str, MetricResult], int]:
    results: dict[str, MetricResult] = {}
    n_cached = 0
    reasons_first = any(record.first_answer_ns != record.first_token_ns for record in records if record.chunk_ns)
    for metric in METRICS.values():
        if (metric.name in _SCHEDULED and not is_open(plan)) or (metric.name == "ttfat" and not reasons_first):
            continue
        if metric.of is None:
            result = _gap_result(metric, cell, records, plan)
        elif metric.name == "prefill_tps_server":
            values, n_cached = prefill_values(records, once)
            result = _result(metric, cell, records, values, plan)
        else:
            result = _result(metric, cell, records, values_of(metric, records), plan)
        if result is not None:
            results[metric.name] = result
    return results, n_cached


def _result(metric: Metric, cell: CellData, records: list[Record], values: Floats, plan: Plan) -> MetricResult | None:
    is_known = ~np.isnan(values)
    if not is_known.any():
        return None
    known = [record for record, has_it in zip(records, is_known, strict=True) if has_it]
    result = _described(metric, values[is_known], clusters_of(cell, known), _SHARES, plan)
    if metric.better == "less" and metric.name not in {"load", "overhead"}:
        adjusted = adjusted_values(metric, records, values)
        result.adjusted_percentiles = {name: _finite(percentile(adjusted, share)) for name, share in _SHARES.items()}
    return result


def _gap_result(metric: Metric, cell: CellData, records: list[Record], plan: Plan) -> MetricResult | None:
    parts = [gaps_of(record) for record in records]
    gaps = np.concatenate(parts) if parts else np.empty(0)
    if not gaps.size:
        return None
    owners = clusters_of(cell, records)  # gaps of one answer depend on each other
    labels = np.repeat(np.arange(len(records)) if owners is None else owners, [part.size for part in parts])
    result = _described(metric, gaps, labels, _SHARES_OF_GAPS, plan)
    own = gaps[gaps > 0]
    stalls = int((own > _STALL_MEDIANS * np.median(own)).sum()) if own.size else 0
    result.extra = {
        "stalls": stalls,
        "stall_share": stalls / gaps.size,
        "shared_read_share": 1 - own.size / gaps.size,
    }
    return result


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _described(
    metric: Metric, values: Floats, clusters: Ints | None, shares: dict[str, float], plan: Plan
) -> MetricResult:
    percentiles = dict(zip(shares, percentile_intervals(values, list(shares.values()), clusters=clusters), strict=True))
    return MetricResult(
        name=metric.name,
        unit=metric.unit,
        n=values.size,
        n_clusters=values.size if clusters is None else int(np.unique(clusters).size),
        mean=mean_interval(values, clusters=_coarser(values.size, clusters), seed=plan.seed),
        median=percentiles["p50"],
        percentiles=percentiles,
        min=float(values.min()),
        max=float(values.max()),
        standard_deviation=float(values.std(ddof=1)) if values.size > 1 else None,
    )


def _coarser(n: int, clusters: Ints | None) -> Ints:
    if clusters is None:
        return neighbours(n)
    names, numbers = np.unique(clusters, return_inverse=True)
    return neighbours(names.size)[numbers]


def _search(data: RunData, cells: list[CellData]) -> tuple[list[SearchStep], Estimate | None]:
    load = data.plan.load
    if not isinstance(load, GoodputSearch):
        return [], None
    search = RateSearch(load)
    complete = {block.level for block in data.blocks}  # a step that was cut short says nothing yet
    by_level = {cell.level_index: cell for cell in cells if cell.level_index in complete}
    for _, level_index in data.searched:
        if (cell := by_level.get(level_index)) is None or not cell.asked or search.next_rate() is None:
            break
        search.add(sum(is_good(one, load.slo, from_intended=True) for one in cell.asked), len(cell.asked))
    return search.steps, search.highest_rate if search.steps else None


def _cold_loads(data: RunData) -> dict[str, MetricResult]:
    names = data.plan.arm_names()
    metric = Metric("cold_load", "s", "less", "unload, see that it is gone, load: seconds of the load", None)
    return {
        names[arm]: _described(metric, np.array(seconds, dtype=np.float64), None, _SHARES, data.plan)
        for arm, seconds in data.cold_loads.items()
        if seconds
    }
