"""Stored runs against each other, judged by how much equal runs of this lab differ by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.comparison import Question, compare_runs
from ai_lab.benchmarks.analysis.contrasts import compared_metrics
from ai_lab.benchmarks.analysis.metrics import METRICS
from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.schemas import Cell, Comparison, Estimate, ReportBody
from ai_lab.errors import InvalidRequest

Floats = NDArray[np.float64]


def compare_stored(job: Job) -> list[Comparison]:
    """Compare each further run of a job with the first, cell by cell.

    Cells belong together that have the same level and the same arm; where both runs have one arm, those two. The noise
    is the change of the same figure between consecutive runs that asked the same, of both runs.

    Raises:
        InvalidRequest: the runs have no figures in common: another load, another version of the definitions.
    """
    baseline, margin = job.run, job.run.plan.equivalence_margin
    questions = [
        asked
        for other in job.others
        for mine, theirs in _matching(other, baseline)
        for asked in _questions(other, baseline, mine, theirs, job.siblings)
    ]
    if not questions:
        raise InvalidRequest(
            "These runs have no arm and level in common that both have figures of. Compare runs of the same load, "
            "or measure the models side by side in one run with several arms."
        )
    return compare_runs(questions, margin=margin)


def _report(run: StoredRun) -> ReportBody:
    if run.report is None:
        raise InvalidRequest(f"Run {run.run_id} has no figures.")
    return run.report


def _matching(other: StoredRun, baseline: StoredRun) -> Iterator[tuple[Cell, Cell]]:
    ours, theirs = _report(other), _report(baseline)
    if ours.definition_version != theirs.definition_version:
        raise InvalidRequest(
            f"The figures of {other.run_id} are of definitions {ours.definition_version}, those of {baseline.run_id} "
            f"of {theirs.definition_version}: they are not the same figures. Rerun the older one."
        )
    alone = len(other.plan.arms) == len(baseline.plan.arms) == 1
    for mine in ours.cells:
        for one in theirs.cells:
            if _place(mine) == _place(one) and (alone or mine.arm == one.arm):
                yield mine, one


def _place(cell: Cell) -> tuple[str, float]:
    return cell.level_kind, cell.level


def _questions(
    other: StoredRun, baseline: StoredRun, mine: Cell, theirs: Cell, siblings: Sequence[Sequence[ReportBody]]
) -> Iterator[tuple[Question, Estimate, Estimate, Floats]]:
    for name in compared_metrics(other.plan):
        ours, before = _figure(mine, name), _figure(theirs, name)
        if ours is None or before is None:
            continue
        metric = METRICS.get(name)
        question = Question(
            metric=name,
            unit=metric.unit if metric else "tokens/s",
            arm=_called(other, mine),
            baseline=_called(baseline, theirs),
            level_index=mine.level_index,
            level=mine.level,
            lower_is_better=metric is not None and metric.better == "less",
        )
        yield question, ours, before, _noise(siblings, {mine.arm, theirs.arm}, _place(mine), name)


def _called(run: StoredRun, cell: Cell) -> str:
    return f"{cell.arm} in run {run.run_id}"


def _figure(cell: Cell, name: str) -> Estimate | None:
    found = cell.metrics[name].median if name in cell.metrics else cell.totals.get(name)
    return found if found is not None and found.value is not None and found.value > 0 else None


def _noise(
    siblings: Sequence[Sequence[ReportBody]], arms: set[str], place: tuple[str, float], name: str
) -> NDArray[np.float64]:
    """Return the log-ratios of a figure between consecutive equal runs, shape (n,)."""
    changes: list[float] = []
    for equal in siblings:
        for arm in arms:
            found = (
                _figure(cell, name)
                for report in equal
                for cell in report.cells
                if (cell.arm, _place(cell)) == (arm, place)
            )
            values = [one.value for one in found if one is not None and one.value is not None]
            changes += [float(np.log(later / earlier)) for earlier, later in pairwise(values)]
    return np.array(changes, dtype=np.float64)
