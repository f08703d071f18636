"""Stored runs against each other, judged by how much equal runs of this lab differ by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.comparison import Question, compare_runs
from ai_lab.benchmarks.analysis.contrasts import compared_metrics
from ai_lab.benchmarks.analysis.metrics import METRICS, is_open
from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.plan import OpenLoop, Plan
from ai_lab.benchmarks.schemas import Cell, Comparison, Estimate, ReportBody
from ai_lab.errors import InvalidRequest

Floats = NDArray[np.float64]
#: What of two plans may not differ unsaid. Arms may, for they are what is compared.
_ASKED = ("prompts", "output_tokens", "force_output_length")
_SAME_MACHINE = ("cpu", "usable_cores", "gpus")


def compare_stored(job: Job) -> list[Comparison]:
    """Compare each further run of a job with the first, cell by cell.

    Cells belong together that have the same level and the same arm; where both runs have one arm, those two. The noise
    is the change of the same figure between consecutive runs that asked the same, of both runs.

    Raises:
        InvalidRequest: the runs have no figures in common: another load, another version of the definitions.
    """
    baseline, margin = job.run, job.run.plan.equivalence_margin
    version = _report(baseline).definition_version
    siblings = [[one for one in equal if one.definition_version == version] for equal in job.siblings]
    questions, caveats = [], []
    for other in job.others:
        for mine, theirs in _matching(other, baseline):
            questions += (asked := list(_questions(other, baseline, mine, theirs, siblings)))
            caveats += [_caveats(other, baseline)] * len(asked)
    if not questions:
        raise InvalidRequest(
            "These runs have no arm and level in common that both have figures of. Compare runs of the same load, "
            "or measure the models side by side in one run with several arms."
        )
    comparisons = compare_runs(questions, margin=margin)
    for comparison, caveat in zip(comparisons, caveats, strict=True):
        comparison.sentence += caveat
    return comparisons


def _caveats(other: StoredRun, baseline: StoredRun) -> str:
    """Return what else stands between two runs, in sentences: what they asked, where they ran, their grades."""
    ours, theirs = _report(other), _report(baseline)
    asked = [name for name in _ASKED if getattr(other.plan, name) != getattr(baseline.plan, name)]
    if is_open(other.plan) and _arrivals(other.plan) != _arrivals(baseline.plan):
        asked.append("arrivals")
    said = [f" They did not ask the same ({', '.join(asked)} differ)."] if asked else []
    if _machine(ours) != _machine(theirs):
        said.append(" They were measured on different machines.")
    graded = [(baseline, theirs), (other, ours)]
    said += [f" Run {run.run_id} is {report.grade}." for run, report in graded if report.grade != "VALID"]
    return "".join(said)


def _arrivals(plan: Plan) -> tuple[str, float]:
    # A search has Poisson arrivals.
    return (plan.load.arrivals, plan.load.burstiness) if isinstance(plan.load, OpenLoop) else ("poisson", 1.0)


def _machine(report: ReportBody) -> list[Any]:
    host = report.provenance.get("host") or {}
    return [host.get(name) for name in _SAME_MACHINE]


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
