"""The charts of a page: which there are for a run, and the table that says the same in numbers beside each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ai_lab.benchmarks.reports.figures import (
    NONE,
    estimate_text,
    metric_of,
    plain_value,
    shown,
    total_unit,
)
from ai_lab.benchmarks.reports.forest import forest_svg
from ai_lab.benchmarks.reports.outline import Table, comparison_rows
from ai_lab.benchmarks.reports.requests import WHOLE, level_values
from ai_lab.benchmarks.reports.series import (
    MOST_POINTS,
    Series,
    cumulative,
    highest_of_slices,
    quantile,
    spread,
)
from ai_lab.benchmarks.reports.svg import Axis, Mark, plot
from ai_lab.benchmarks.reports.waterfall import waterfall_svg
from ai_lab.benchmarks.schemas import Cell, Estimate, Run

_MOST_LEVELS_DRAWN = 3
_MOST_COMPARISONS_DRAWN = 40
_SHARES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with what its colours mean, what was left out, and its table. Texts are not yet escaped."""

    title: str
    svg: str
    legend: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    table: Table | None = None


def charts(run: Run, series: Series) -> Iterator[Chart]:
    """Yield the charts for which there is something to draw, the most telling first."""
    if run.report and run.report.comparisons:
        yield _forest(run)
    if len(level_values(run)) > 1:
        yield from _against_level(run)
    yield from _distributions(run, series)
    if series.bars.items:
        yield _waterfall(run, series)
    if series.gaps.items:
        yield _gaps(run, series)
    if series.samples:
        yield _processors(series)


def _arms(run: Run) -> list[tuple[int, str]]:
    return [(slot, shown(name, 80)) for slot, name in enumerate(run.plan.arm_names())]


def _forest(run: Run) -> Chart:
    every = run.report.comparisons if run.report else []
    drawn = every[:_MOST_COMPARISONS_DRAWN]
    notes = [
        "The band is the margin within which differences count as none; a line that leaves it to one side decides."
    ]
    if len(drawn) < len(every):
        notes.append(f"The first {len(drawn)} of {len(every)} comparisons are drawn; the table has all.")
    return Chart("Comparisons", forest_svg(drawn), notes=notes, table=comparison_rows(every))


def _against_level(run: Run) -> Iterator[Chart]:
    cells = run.report.cells if run.report else []
    first = "ttft" if run.plan.load.mode == "closed" else "ttft_sched"
    picks: list[tuple[str, str, str, Callable[[Cell], Estimate | None]]] = [
        ("throughput", "Throughput", total_unit("output_tps"), lambda cell: cell.totals.get("output_tps")),
        ("first", "Time to first token, median", "ms", lambda cell: _median(cell, first)),
        ("decode", "Decode rate of one stream, median", "tok/s", lambda cell: _median(cell, "decode_tps")),
        ("goodput", "Goodput", total_unit("goodput_rps"), lambda cell: cell.totals.get("goodput_rps")),
    ]
    level = "concurrency" if run.plan.load.mode == "closed" else "rate (req/s)"
    for name, title, unit, pick in picks:
        marks, rows = [], []
        for slot, arm in _arms(run):
            own = [(one.level, pick(one)) for one in cells if one.arm_index == slot]
            found = sorted(((at, one) for at, one in own if one and one.value is not None), key=lambda pair: pair[0])
            points = [(at, one.value) for at, one in found if one.value is not None]
            bars = [(at, one.low, one.high) for at, one in found if one.low is not None and one.high is not None]
            if points:
                marks.append(Mark(slot, "line", points, bars))
            rows += [[arm, f"{at:g}", estimate_text(one, unit)] for at, one in found]
        if rows:
            ys = [y for mark in marks for _, y in mark.points] + [
                y for mark in marks for _, *b in mark.intervals for y in b
            ]
            x = Axis.over([at for mark in marks for at, _ in mark.points], level, from_zero=True)
            svg = plot(
                name, f"{title} against {level}", _said(rows), x=x, y=Axis.over(ys, unit, from_zero=True), marks=marks
            )
            table = Table(f"{title} against {level}", ["Arm", level.capitalize(), title], rows)
            yield Chart(f"{title} against {level}", svg, _arms(run), ["Bars are 95 % intervals."], table)


def _median(cell: Cell, name: str) -> Estimate | None:
    metric = metric_of(cell, name)
    return metric.median if metric else None


def _distributions(run: Run, series: Series) -> Iterator[Chart]:
    levels = level_values(run)
    present = sorted({level for _, level in series.latencies})
    kind = "concurrency" if run.plan.load.mode == "closed" else "rate"
    since = "" if kind == "concurrency" else ", from the intended time"
    picked = [present[at] for at in spread(len(present), _MOST_LEVELS_DRAWN)]
    for name, what in (("ttft", "Time to first token"), ("e2e", "Time to last token")):
        for level in picked:
            at = f" at {kind} {levels.get(level, level):g}" if len(present) > 1 else ""
            chart = _distribution(run, series, name, level, f"Distribution: {what.lower()}{since}{at}")
            if chart:
                if len(picked) < len(present):
                    chart.notes.append(f"{len(picked)} of {len(present)} levels are drawn; the figures above have all.")
                yield chart


def _distribution(run: Run, series: Series, name: str, level: int, title: str) -> Chart | None:
    marks, rows, legend, notes = [], [], [], []
    with_values = [
        arm for arm, at in sorted(series.latencies) if at == level and series.latencies[arm, at].values[name]
    ]
    for arm in with_values:
        cell = series.latencies[arm, level]
        ordered = sorted(cell.values[name])
        points = cumulative(ordered, cell.requests, MOST_POINTS // len(with_values))
        label = shown(run.plan.arm_names()[arm], 80)
        marks.append(Mark(arm, "step", points))
        legend.append((arm, label))
        rows.append(
            [label, str(len(ordered)), str(cell.requests - len(ordered))]
            + [plain_value(one, "ms") for one in (ordered[0], *(quantile(ordered, p) for p in _SHARES), ordered[-1])]
        )
        if len(points) < len(ordered):
            notes.append(f"{label}: {len(points)} of {len(ordered)} values are drawn.")
        if len(ordered) < cell.requests:
            notes.append(f"{label}: {cell.requests - len(ordered)} requests never got there, so it ends below 100 %.")
    if not marks:
        return None
    columns = ["Arm", "n", "Never", "Least", *(f"p{share * 100:g}" for share in _SHARES), "Most"]
    shares = {share: f"{share:.0%}" for share in (0, 0.25, 0.5, 0.75, 1)}
    y = Axis("share of requests", 0, 1.02, labels=shares)
    x = Axis.over([value for mark in marks for value, _ in mark.points], "ms", may_be_log=True)
    if x.is_log:
        notes.append("The horizontal axis is logarithmic.")
    svg = plot(f"{name}-{level}", title, _said([columns, *rows]), x=x, y=y, marks=marks)
    return Chart(title, svg, legend, notes, Table(f"{title}: the values as they are", columns, rows))


def _waterfall(run: Run, series: Series) -> Chart:
    bars = series.bars
    since = "its sending" if run.plan.load.mode == "closed" else "the intended time"
    notes = [f"Each request from {since}. Pale: waiting for the first token; marks: tokens; crossed: no whole answer."]
    if bars.seen > len(bars.items):
        notes.append(f"{len(bars.items)} of {bars.seen} requests are drawn, chosen at random.")
    rows = []
    for slot, arm in _arms(run):
        own = [one for one in bars.items if one.arm == slot]
        first = sorted(one.tokens_ms[0] for one in own if one.tokens_ms)
        bad = sum(one.status not in WHOLE for one in own)
        rows.append([arm, str(len(own)), str(bad), plain_value(quantile(first, 0.5) if first else None, "ms")])
    columns = ["Arm", "Requests", "Without a whole answer", "First token, median of these"]
    svg = waterfall_svg(bars.items, level_values(run))
    return Chart("Token timeline", svg, _arms(run), notes, Table("Requests that are drawn", columns, rows))


def _gaps(run: Run, series: Series) -> Chart:
    points = series.gap_points()
    arms = _arms(run)
    marks = [Mark(slot, "dots", [(at, gap) for arm, at, gap in points if arm == slot]) for slot, _ in arms]
    above = [gap for _, _, gap in points if gap > 0]
    y = Axis.over(above, "gap between chunks (ms)", may_be_log=True, from_zero=False)
    if not y.is_log:
        y = Axis.over([0.0, *above], "gap between chunks (ms)", from_zero=True)
    x = Axis.over([at for _, at, _ in points], "seconds since the beginning", from_zero=True)
    notes = ["Raw gaps between chunks; chunks of one read have a gap of 0."]
    if len(points) < series.gaps.seen:
        notes.append(f"{len(points)} of {series.gaps.seen} gaps are drawn, the largest always.")
    if y.is_log:
        notes.append("The vertical axis is logarithmic.")
    rows = []
    for slot, arm in arms:
        own = sorted(gap for one, _, gap in series.gaps.items if one == slot)
        most = max((gap for gap, _, one in series.largest if one == slot), default=None)
        middle = quantile(own, 0.5) if own else None
        rows.append([arm, plain_value(middle, "ms"), plain_value(most, "ms")])
    table = Table("Gaps over the run", ["Arm", "Median of those drawn", "Largest"], rows)
    return Chart(
        "Gaps over the run", plot("gaps", "Gaps over the run", _said(rows), x=x, y=y, marks=marks), arms, notes, table
    )


def _processors(series: Series) -> Chart:
    lines = {
        "server under test": [(one.at_ns, one.target_cpu_percent) for one in series.samples],
        "this client": [(one.at_ns, one.client_cpu_percent) for one in series.samples],
        "everything else": [(one.at_ns, one.other_cpu_percent) for one in series.samples],
        "whole machine": [(one.at_ns, one.cpu_percent) for one in series.samples],
    }
    for index in range(max((len(one.gpus) for one in series.samples), default=0)):
        lines[f"GPU {index}"] = [
            (one.at_ns, one.gpus[index].get("utilization_percent") if index < len(one.gpus) else None)
            for one in series.samples
        ]
    marks, rows, legend, slices = [], [], [], 1
    for slot, (name, values) in enumerate(lines.items()):
        known = [(series.seconds(at), float(value)) for at, value in values if isinstance(value, int | float)]
        percents = [value for _, value in known]
        mean = sum(percents) / len(percents) if percents else None
        rows.append([name, plain_value(mean, "%"), plain_value(max(percents, default=None), "%")])
        if known:
            kept, size = highest_of_slices(known, MOST_POINTS // len(lines))
            slices = max(slices, size)
            marks.append(Mark(slot, "dots" if len(kept) == 1 else "plain", kept))
            legend.append((slot, name))
    notes = ["Percent of all usable cores together."]
    notes += [f"unavailable: {', '.join(row[0] for row in rows if row[1] == NONE)}"] if len(marks) < len(rows) else []
    if slices > 1:
        notes.append(f"The highest of every {slices} samples is drawn.")
    x = Axis.over([at for mark in marks for at, _ in mark.points], "seconds since the beginning")
    svg = plot("cpu", "Load of the machine", _said(rows), x=x, y=Axis("percent", 0, 105), marks=marks)
    return Chart("Load of the machine", svg, legend, notes, Table("Load", ["Of", "Mean", "Highest"], rows))


def _said(rows: Sequence[Sequence[str]]) -> str:
    """Return the first rows of a table as a sentence for those who do not see the drawing."""
    return ". ".join(", ".join(row) for row in rows[:8]) + "."
