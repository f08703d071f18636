"""What every report for people says, in its order: the grade first, then verdicts, figures, method and origin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ai_lab.benchmarks.plan import Iterations, OpenLoop, Plan
from ai_lab.benchmarks.reports.figures import (
    NONE,
    change_text,
    estimate_text,
    level_text,
    metric_of,
    plain_value,
    shown,
    total_unit,
)
from ai_lab.benchmarks.schemas import ENDED, Cell, Comparison, Estimate, Reason, ReportBody, Run

_MOST_ORIGINS = 150
_MOST_VERDICTS = 24  # before the figures; the table has all
_MOST_PLAIN = 1e4  # floats from here on are written without decimals, and never with an exponent
_Figure = tuple[Estimate | None, str]  # with its unit
_SEVERITIES = ("invalid", "suspect", "note")
_MEANING = {
    "VALID": "nothing was found that spoils these figures",
    "SUSPECT": "read the reasons before you rely on these figures",
    "INVALID": "do not use these figures",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain text; ``columns`` has as many entries as each row."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)  # below it


@dataclass(frozen=True, slots=True)
class Outline:
    """The text of a report, not yet escaped for any format."""

    title: str
    grade: str  # VALID, SUSPECT, INVALID or NOT GRADED
    meaning: str
    reasons: list[tuple[str, str]]  # severity, text
    verdicts: list[tuple[str, str]]  # verdict, sentence
    headline: Table | None
    failures: list[str]
    tables: list[tuple[str, Table]]  # the rest, by title: what not every run has
    machine: Table | None
    method: str
    origins: list[tuple[str, str]] = field(default_factory=list)
    rerun: str = ""


def outline(run: Run) -> Outline:
    """Return the text of a run's report, whatever its state."""
    report = run.report
    return Outline(
        title=shown(run.title) or "Benchmark",
        grade=report.grade if report else "NOT GRADED",
        meaning=_MEANING[report.grade] if report else _state(run),
        reasons=[_reason(one) for one in _by_severity(report.reasons)] if report else [],
        verdicts=list(_verdicts(report)) if report else [],
        headline=headline(report, is_open=run.plan.load.mode != "closed") if report and report.cells else None,
        failures=list(_failures(run)),
        tables=list(further_tables(report)) if report else [],
        machine=_machine(report.machine) if report and report.machine else None,
        method=_method(run),
        origins=list(_origins(run))[:_MOST_ORIGINS],
        rerun=f"ai-lab bench rerun {shown(run.id)}",
    )


def headline(report: ReportBody, *, is_open: bool) -> Table:
    """Return the figures most people look for, one row per arm and level, each with its interval."""
    first, whole = ("ttft_sched", "e2e_sched") if is_open else ("ttft", "e2e")
    since = ", from the intended time" if is_open else ""
    columns: dict[str, Callable[[Cell], _Figure]] = {
        f"First token, median{since}": lambda cell: _of_metric(cell, first),
        "First token, p95": lambda cell: _of_metric(cell, first, "p95"),
        "Time per token, median": lambda cell: _of_metric(cell, "tpot"),
        "Decode rate, median": lambda cell: _of_metric(cell, "decode_tps"),
        f"Whole answer, median{since}": lambda cell: _of_metric(cell, whole),
        "All streams together": lambda cell: (cell.totals.get("output_tps"), total_unit("output_tps")),
    }
    if any("goodput_rps" in cell.totals for cell in report.cells):
        columns["Goodput"] = lambda cell: (cell.totals.get("goodput_rps"), total_unit("goodput_rps"))
    notes: dict[str, int] = {}
    return Table(
        caption="value [low, high]: the interval that covers the true value in 95 of 100 runs like this one",
        columns=["Arm", "Level", "n (ok of all)", *columns],
        rows=[
            [shown(cell.arm, 80), level_text(cell), f"{cell.counts.ok} of {cell.counts.all}"]
            + [_with_note(*figure(cell), notes) for figure in columns.values()]
            for cell in report.cells
        ],
        notes=[f"Note {number}: {reason}" for reason, number in notes.items()],
    )


def _of_metric(cell: Cell, name: str, percentile: str | None = None) -> _Figure:
    metric = metric_of(cell, name)
    if metric is None:
        return None, ""
    return metric.percentiles.get(percentile) if percentile else metric.median, metric.unit


def _with_note(estimate: Estimate | None, unit: str, notes: dict[str, int]) -> str:
    """Return the figure; where it lacks something, the number of the note that says why."""
    text = estimate_text(estimate, unit, with_reason=False)
    if estimate is None or not estimate.reason or estimate.low is not None:
        return text
    number = notes.setdefault(shown(estimate.reason, 300), len(notes) + 1)
    return f"{text} [{'no interval: ' if estimate.value is not None else ''}note {number}]"


def every_metric(cell: Cell) -> Table:
    """Return all metrics and totals of one cell."""
    rows = [
        [
            name,
            str(one.n),
            estimate_text(one.median, one.unit),
            estimate_text(one.mean, one.unit, with_reason=False),
            *(estimate_text(one.percentiles.get(p), one.unit, with_reason=False) for p in ("p95", "p99")),
            plain_value(one.min, one.unit),
            plain_value(one.max, one.unit),
        ]
        for name, one in cell.metrics.items()
    ]
    rows += [
        [name, str(cell.counts.all), estimate_text(one, total_unit(name)), *[NONE] * 5]
        for name, one in cell.totals.items()
    ]
    return Table(
        caption=f"{shown(cell.arm, 80)}, {level_text(cell)}",
        columns=["Metric", "n", "Median, or total", "Mean", "p95", "p99", "Least", "Most"],
        rows=[[shown(row[0], 60), *row[1:]] for row in rows],
    )


def comparison_rows(comparisons: Sequence[Comparison]) -> Table:
    """Return every comparison as a row, the ratio as a change in percent."""
    return Table(
        caption="Change of the arm against the baseline, with its interval; p by permutation, adjusted after Holm",
        columns=["Metric", "Arm", "Baseline", "Level", "Change", "Blocks", "p (adjusted)", "Verdict", "Blocks needed"],
        rows=[
            [
                shown(one.metric, 60),
                shown(one.arm, 80),
                shown(one.baseline, 80),
                f"{one.level:g}",
                change_text(one.low, one.ratio, one.high),
                str(one.n_blocks),
                NONE if one.p_adjusted is None else f"{one.p_adjusted:.2g}",
                one.verdict + (" (historical)" if one.is_historical else ""),
                NONE if one.blocks_needed is None else str(one.blocks_needed),
            ]
            for one in comparisons
        ],
    )


def _state(run: Run) -> str:
    if run.status not in ENDED:
        return f"{run.status}: {run.progress.done} of {run.progress.total} requests so far"
    return f"{run.status}: {shown(run.error, 500)}" if run.error else f"{run.status} without a figure"


def _by_severity(reasons: Sequence[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda one: _SEVERITIES.index(one.severity))


def _reason(reason: Reason) -> tuple[str, str]:
    arm = f"{shown(reason.arm, 80)}: " if reason.arm else ""
    return reason.severity, arm + shown(reason.text, 1000)


def _verdicts(report: ReportBody) -> Iterator[tuple[str, str]]:
    levels = {cell.level_index: level_text(cell) for cell in report.cells}
    for one in report.comparisons[:_MOST_VERDICTS]:
        level = f"{levels.get(one.level_index, f'{one.level:g}')}: " if len(levels) > 1 else ""
        yield one.verdict, level + _sentence(one)
    if (more := len(report.comparisons) - _MOST_VERDICTS) > 0:
        yield "more", f"{more} further comparisons are in the table of comparisons."


def _sentence(one: Comparison) -> str:
    said = shown(one.sentence, 500) or (
        f"{shown(one.arm, 80)} against {shown(one.baseline, 80)}: {one.verdict} "
        f"({shown(one.metric, 60)} {change_text(one.low, one.ratio, one.high)})"
    )
    return f"{said} Historical: the two were not measured side by side." if one.is_historical else said


def _failures(run: Run) -> Iterator[str]:
    if run.report and run.error:
        yield f"The run ended as {run.status}: {shown(run.error, 500)}"
    for cell in run.report.cells if run.report else ():
        counts = cell.counts
        bad = {name: n for name, n in counts.model_dump().items() if n and name != "ok"}
        if bad:
            kinds = ", ".join(f"{n} {name}" for name, n in bad.items())
            texts = "; ".join(f"{shown(text, 200)} ({n}×)" for text, n in list(cell.errors.items())[:5])  # noqa: RUF001 - times
            yield f"{shown(cell.arm, 80)}, {level_text(cell)}: {kinds} of {counts.all}" + (
                f": {texts}" if texts else ""
            )
        for note in cell.notes:
            yield f"{shown(cell.arm, 80)}, {level_text(cell)}: {shown(note, 300)}"


def further_tables(report: ReportBody) -> Iterator[tuple[str, Table]]:
    """Yield the tables that only some runs have: the search for the highest rate, cold loads."""
    if report.search:
        yield "Highest rate", _search(report)
    if report.cold_load_seconds:
        rows = [
            [shown(arm, 80), str(one.n), estimate_text(one.median, one.unit), *(plain_value(v, one.unit) for v in ends)]
            for arm, one in report.cold_load_seconds.items()
            for ends in [(one.min, one.max)]
        ]
        yield "Cold loads", Table("", ["Arm", "n", "Median", "Least", "Most"], rows)


def _search(report: ReportBody) -> Table:
    found = estimate_text(report.highest_rate, "req/s") if report.highest_rate else "not found"
    return Table(
        caption=f"Highest rate that keeps the objective: {found}",
        columns=["Rate", "Good requests", "Objective"],
        rows=[
            [plain_value(one.rate, "req/s"), estimate_text(one.share_good, "share"), "kept" if one.holds else "missed"]
            for one in report.search
        ],
    )


def _machine(parts: dict[str, Any]) -> Table:
    """Return a row for each figure and a column for each part of the run: idle before, busy, idle after."""
    columns = {part: dict(_flat(figures)) for part, figures in parts.items() if isinstance(figures, dict)}
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    return Table(
        caption="The whole machine as it was seen during the run; what is missing could not be read",
        columns=["Figure", *(shown(part.replace("_", " "), 40) for part in columns)],
        rows=[[name, *(figures.get(name, NONE) for figures in columns.values())] for name in names[:_MOST_ORIGINS]],
    )


def _method(run: Run) -> str:
    plan, report = run.plan, run.report
    parts = [_load(plan)]
    if run.progress.blocks_total > 1:
        parts.append(
            f"{run.progress.blocks_total} blocks" + (" in random order over the arms" if len(plan.arms) > 1 else "")
        )
    prompts = plan.prompts
    if prompts.texts:
        parts.append(f"{len(prompts.texts)} prompts of the user's")
    else:
        parts.append(f"{prompts.mode.replace('_', ' ')} prompts of {prompts.tokens} tokens")
    parts.append(f"answers of {plan.output_tokens} tokens")
    parts.append(f"{plan.warmup} requests of warm-up per arm")
    parts.append(f"seed {plan.seed}")
    if report:
        methods = sorted({m.median.method for cell in report.cells for m in cell.metrics.values() if m.median.method})
        if methods:
            parts.append("intervals of medians by " + " or ".join(shown(one, 80) for one in methods))
        if report.instrument:
            error = estimate_text(report.instrument.ttft_error_ms, "ms", with_reason=False)
            gap = plain_value(report.instrument.gap_error_ms, "ms")
            parts.append(f"instrument error {error} at the first token, {gap} at the p99 of gaps")
        parts.append(f"definitions version {report.definition_version}")
    return "; ".join(parts) + "."


def _load(plan: Plan) -> str:
    load = plan.load
    if isinstance(load, Iterations):
        levels = ", ".join(str(one) for one in load.concurrency)
        return f"Closed loop, {load.requests} requests per arm and level, concurrency {levels}"
    if isinstance(load, OpenLoop):
        levels = ", ".join(f"{one:g}" for one in load.rates)
        return f"Open loop, {load.requests} {load.arrivals} arrivals per arm and level, {levels} requests per second"
    limits = load.slo.model_dump(exclude_none=True, exclude={"share"})
    said = ", ".join(f"{name.removesuffix('_ms')} ≤ {value:g} ms" for name, value in limits.items())
    return f"Search for the highest rate at which {load.slo.share:.0%} of the requests keep {said}"


def _origins(run: Run) -> Iterator[tuple[str, str]]:
    yield "run", shown(run.id)
    if run.rerun_of:
        yield "rerun of", shown(run.rerun_of)
    yield (
        "status",
        run.status
        + (
            f", went on after {run.resumed} {'interruption' if run.resumed == 1 else 'interruptions'}"
            if run.resumed
            else ""
        ),
    )
    for name, moment in (("started", run.started_at), ("ended", run.ended_at)):
        if moment:
            yield name, moment.isoformat(timespec="seconds")
    if run.report:
        yield from _flat(run.report.provenance)


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above}{shown(key, 80)}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name} › ")  # noqa: RUF001 - parts of a path
        else:
            yield name, _value_text(value)


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < _MOST_PLAIN else f"{value:.0f}"
    return shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 300)
