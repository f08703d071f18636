"""Comparisons as a forest plot: one line for each, its interval, and the band of differences that count as none."""

from __future__ import annotations

from collections.abc import Sequence

from ai_lab.benchmarks.reports.figures import change_text
from ai_lab.benchmarks.reports.svg import WIDTH, Axis, escape, frame, line_between, text_at
from ai_lab.benchmarks.schemas import Comparison

_ROW = 40
_TEXT = 18  # of a row, above its line
_TOP = 8
_LEFT, _RIGHT = 20, 190  # the texts on the right have the numbers
_MOST_CHANGE = 400.0  # percent; lines go on to the edge beyond


def forest_svg(comparisons: Sequence[Comparison]) -> str:
    """Return the plot; changes are percent of the baseline's figure, ratio - 1."""
    margin = max((one.equivalence_margin for one in comparisons), default=0.03) * 100
    edges = [_percent(value) for one in comparisons for value in (one.low, one.high, one.ratio) if value is not None]
    axis = Axis.over(
        [*(max(min(one, _MOST_CHANGE), -100.0) for one in edges), -2 * margin, 2 * margin], "change, percent"
    )
    bottom = _TOP + _ROW * len(comparisons)
    parts = [_band(axis, comparisons)]
    parts.append(line_between(_LEFT, bottom, WIDTH - _RIGHT, bottom, "axis"))
    for value, label in axis.ticks():
        parts.append(line_between(_at(axis, value), bottom, _at(axis, value), bottom + 4, "axis"))
        parts.append(text_at(_at(axis, value), bottom + 17, label, "middle"))
    parts.append(text_at((_LEFT + WIDTH - _RIGHT) / 2, bottom + 34, "change against the baseline, percent", "middle"))
    parts += [_line(axis, one, _TOP + _ROW * row) for row, one in enumerate(comparisons)]
    described = ". ".join(f"{one.arm} against {one.baseline}, {one.metric}: {one.verdict}" for one in comparisons)
    return frame("forest", "Comparisons with their intervals", described, parts, bottom + 42)


def _percent(ratio: float) -> float:
    return (ratio - 1) * 100


def _at(axis: Axis, percent: float) -> float:
    part = min(max(axis.part(percent), 0.0), 1.0)
    return _LEFT + part * (WIDTH - _LEFT - _RIGHT)


def _band(axis: Axis, comparisons: Sequence[Comparison]) -> str:
    """Return the margin of each row; limits of a ratio: 1 - m stands for 1 / (1 + m)."""
    parts = []
    for row, one in enumerate(comparisons):
        low, high = _at(axis, _percent(1 / (1 + one.equivalence_margin))), _at(axis, one.equivalence_margin * 100)
        parts.append(
            f'<rect class="band" x="{low:.1f}" y="{_TOP + _ROW * row + _TEXT}" width="{high - low:.1f}" '
            f'height="{_ROW - _TEXT}"/>'
        )
        zero = _at(axis, 0)
        parts.append(line_between(zero, _TOP + _ROW * row + _TEXT, zero, _TOP + _ROW * (row + 1), "axis"))
    return "".join(parts)


def _line(axis: Axis, one: Comparison, top: float) -> str:
    middle = top + 29
    parts = [text_at(_LEFT, top + 13, f"{one.metric} · {one.arm} / {one.baseline} @ {one.level:g}", most=80)]
    if one.low is not None and one.high is not None:
        low, high = _at(axis, _percent(one.low)), _at(axis, _percent(one.high))
        parts.append(line_between(low, middle, high, middle, f"v-{one.verdict} bar"))
        parts += [line_between(edge, middle - 4, edge, middle + 4, f"v-{one.verdict} bar") for edge in (low, high)]
    if one.ratio is not None:
        parts.append(f'<circle class="v-{one.verdict}" cx="{_at(axis, _percent(one.ratio)):.1f}" cy="{middle}" r="4"/>')
    said = f"{one.verdict}{' (historical)' if one.is_historical else ''}"
    parts.append(f'<text class="v-{one.verdict}" x="{WIDTH - _RIGHT + 10}" y="{top + 13}">{escape(said)}</text>')
    parts.append(text_at(WIDTH - _RIGHT + 10, top + 28, change_text(one.low, one.ratio, one.high)))
    return "".join(parts)
