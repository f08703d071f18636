"""Which figures of which arms are compared: blocks that ran side by side, all arms against the first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.cells import CellData, span_ns
from ai_lab.benchmarks.analysis.comparison import Question, compare_blocks
from ai_lab.benchmarks.analysis.metrics import COMPLETED, METRICS, is_open, values_of
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Comparison

Floats = NDArray[np.float64]
#: decode_tps is tpot turned over and would only make the family larger that Holm's correction pays for.
_CLOSED = ("tpot", "ttft", "e2e", "output_tps")
_OPEN = ("tpot", "ttft_sched", "e2e_sched")


def compared_metrics(plan: Plan) -> tuple[str, ...]:
    """Return the names of what is compared: metrics, and output_tps of the totals."""
    return _OPEN if is_open(plan) else _CLOSED


def compare_arms(cells: list[CellData], plan: Plan) -> list[Comparison]:
    """Compare every other arm with the first, level by level, on the metrics that matter for the plan.

    Compared are the medians of blocks (of rates: tokens by time of a block). The blocks of one round ran side by side,
    so that the k-th block of an arm belongs to the k-th of the other.
    """
    names = plan.arm_names()
    by_place = {(cell.level_index, cell.arm): cell for cell in cells}
    questions: list[tuple[Question, Floats, Floats]] = []
    for (level_index, arm), cell in by_place.items():
        baseline = by_place.get((level_index, 0))
        if arm == 0 or baseline is None:
            continue
        for name in compared_metrics(plan):
            ours, theirs = _by_block(cell, name), _by_block(baseline, name)
            pairs = min(ours.size, theirs.size)
            if not (~np.isnan(ours[:pairs]) & ~np.isnan(theirs[:pairs])).any():
                continue
            metric = METRICS.get(name)
            question = Question(
                metric=name,
                unit=metric.unit if metric else "tokens/s",
                arm=names[arm],
                baseline=names[0],
                level_index=level_index,
                level=cell.level,
                lower_is_better=metric is not None and metric.better == "less",
            )
            questions.append((question, ours[:pairs], theirs[:pairs]))
    return compare_blocks(questions, margin=plan.equivalence_margin, seed=plan.seed) if questions else []


def _by_block(cell: CellData, name: str) -> Floats:
    """Return one figure of each block, NaN where a block has none, shape (n_blocks,)."""
    blocks = cell.by_block().values()
    if name not in METRICS:
        return np.array([_output_tps(records) for records in blocks], dtype=np.float64)
    return np.array([_median(values_of(METRICS[name], records)) for records in blocks], dtype=np.float64)


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _output_tps(records: list[Record]) -> float:
    counts = [record.completion_tokens for record in records if record.status in COMPLETED]
    tokens = sum(count for count in counts if count is not None)
    span = span_ns(records)
    if span is None or span[1] <= span[0] or not tokens or None in counts:
        return float("nan")
    return tokens / ((span[1] - span[0]) / 1e9)
