"""Plots for notebooks and papers, by matplotlib; only ``BenchmarkResult.plot`` loads this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.reports.figures import shown
from ai_lab.benchmarks.reports.requests import level_values
from ai_lab.benchmarks.reports.series import MOST_POINTS, Series, cumulative, series_of
from ai_lab.benchmarks.schemas import Run
from ai_lab.errors import InvalidRequest, NotFound

#: Okabe and Ito's colours, which people who see fewer colours can tell apart; matplotlib's own are not.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a00", "#555555")
_STYLES = ("-", "--", "-.", ":")


def draw(run: Run, records: Iterable[Record], kind: str | None) -> Figure:
    """Return a figure of one kind, or of all kinds that there is something to draw of.

    Raises:
        InvalidRequest: There is no such kind.
        NotFound: There is nothing to draw.
    """
    kinds: dict[str, Callable[[Axes, Run, Series], bool]] = {
        "cdf": _cdf,
        "throughput": _throughput,
        "timeline": _timeline,
    }
    if kind is not None and kind not in kinds:
        raise InvalidRequest(f"There is no plot {kind!r}. Choose one of {', '.join(kinds)}.", param="kind")
    series = series_of(records, (), is_open=run.plan.load.mode != "closed")
    wanted = [kinds[kind]] if kind else [one for one in kinds.values() if one(Figure().add_subplot(), run, series)]
    # With pyplot and not with Figure alone: only so does a notebook know how to show what is returned. It is closed at
    # once, or the notebook would show it twice.
    figure, every = plt.subplots(1, max(len(wanted), 1), squeeze=False, figsize=(6.4 * max(len(wanted), 1), 4.4))
    plt.close(figure)
    is_drawn = [one(axes, run, series) for one, axes in zip(wanted, every[0], strict=False)]
    if not any(is_drawn):
        raise NotFound(f"This run ({run.status}) has nothing to draw{f' as {kind}' if kind else ''}.")
    figure.suptitle(f"{run.report.grade if run.report else 'NOT GRADED'}: {_plain(run.title)}")
    figure.set_layout_engine("constrained")
    return figure


def _plain(text: str) -> str:
    """Return foreign text that matplotlib does not take for a formula."""
    return shown(text, 80).replace("$", r"\$")


def _arms(run: Run) -> list[tuple[int, str]]:
    return [(arm, _plain(name)) for arm, name in enumerate(run.plan.arm_names())]


def _cdf(axes: Axes, run: Run, series: Series) -> bool:
    levels = level_values(run)
    places = sorted(place for place, cell in series.latencies.items() if cell.values["ttft"])
    names = dict(_arms(run))
    for arm, level in places:
        cell = series.latencies[arm, level]
        points = cumulative(cell.values["ttft"], cell.requests, MOST_POINTS // len(places))
        label = names[arm] + (f" @ {levels.get(level, level):g}" if len(levels) > 1 else "")
        axes.step(*_columns(points), where="post", label=label, color=_colour(arm), ls=_STYLES[level % len(_STYLES)])
    axes.set(xlabel="time to first token (ms)", ylabel="share of requests, failed ones never", ylim=(0, 1.02))
    return _finish(axes, bool(places))


def _throughput(axes: Axes, run: Run, _: Series) -> bool:
    cells = run.report.cells if run.report else []
    is_any = False
    for arm, name in _arms(run):
        found = [(cell.level, cell.totals.get("output_tps")) for cell in cells if cell.arm_index == arm]
        own = sorted(((at, one) for at, one in found if one and one.value is not None), key=lambda pair: pair[0])
        for level, total in own:
            if total.low is not None and total.high is not None:
                axes.plot([level, level], [total.low, total.high], color=_colour(arm), marker="_")
        values = [(level, total.value) for level, total in own if total.value is not None]
        if values:
            axes.plot(*_columns(values), marker="o", label=name, color=_colour(arm), ls=_STYLES[arm % len(_STYLES)])
            is_any = True
    kind = "concurrency" if run.plan.load.mode == "closed" else "requests per second"
    axes.set(xlabel=kind, ylabel="all streams together (tok/s), 95 % intervals")
    axes.set_ylim(bottom=0)
    return _finish(axes, is_any)


def _timeline(axes: Axes, run: Run, series: Series) -> bool:
    points = series.gap_points()
    for arm, name in _arms(run):
        own = [(seconds, gap) for one, seconds, gap in points if one == arm]
        if own:
            axes.plot(*_columns(own), ".", ms=3, label=name, color=_colour(arm))
    many = f", {len(points)} of {series.gaps.seen}" if len(points) < series.gaps.seen else ""
    axes.set(xlabel="seconds since the beginning", ylabel=f"gap between chunks (ms{many})")
    return _finish(axes, bool(points))


def _finish(axes: Axes, is_drawn: bool) -> bool:
    axes.grid(visible=True, alpha=0.3)
    if is_drawn:
        axes.legend(fontsize="small")
    return is_drawn


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _colour(arm: int) -> str:
    return _COLOURS[arm % len(_COLOURS)]
