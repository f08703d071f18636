"""Drawing: axes with round numbers, lines, steps, dots and intervals as SVG text. Every text is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ai_lab.benchmarks.reports.figures import shown

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 46
_LOG_FROM_RATIO = 30  # values that differ more are drawn on a logarithmic axis
SLOTS = 8


def escape(text: object, most: int = 200) -> str:
    """Return foreign text for HTML and SVG, in elements and attributes alike."""
    return html.escape(shown(text, most))


@dataclass(slots=True)
class Axis:
    """A range of values and the round numbers in it."""

    label: str
    low: float
    high: float
    is_log: bool = False
    labels: dict[float, str] = field(default_factory=dict)  # instead of round numbers

    @classmethod
    def over(cls, values: Sequence[float], label: str, *, from_zero: bool = False, may_be_log: bool = False) -> Axis:
        """Return the axis that holds all values."""
        kept = [one for one in values if math.isfinite(one)] or [0.0, 1.0]
        low, high = min(kept), max(kept)
        if may_be_log and low > 0 and high / low > _LOG_FROM_RATIO:
            return cls(label, low / 1.1, high * 1.1, is_log=True)
        low = min(low, 0.0) if from_zero else low
        margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(label, low if from_zero and low == 0 else low - margin, high + margin)

    def part(self, value: float) -> float:
        """Return where on the axis a value lies: 0 is its beginning, 1 its end."""
        if self.is_log:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return up to about seven round numbers and how they are written."""
        if self.labels:
            return list(self.labels.items())
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 2 else (1,)  # noqa: PLR2004 - decades that have room for more
            marks = [factor * 10.0**power for power in range(first, last + 1) for factor in steps]
            return [(one, f"{one:g}") for one in marks if self.low <= one <= self.high]
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
        first = math.ceil(self.low / step)
        return [(n * step, f"{round(n * step, 12):g}") for n in range(first, math.floor(self.high / step) + 1)]


@dataclass(slots=True)
class Mark:
    """Points drawn in one colour: as a line, as steps or as dots, with the intervals of some of them."""

    slot: int
    kind: str  # line (with dots), plain (without), step, dots
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float, float]] = ()  # x, low, high


def plot(name: str, title: str, description: str, *, x: Axis, y: Axis, marks: Sequence[Mark]) -> str:
    """Return a chart as one ``svg`` element with title and description for those who do not see it."""
    grid = [_grid_x(x), _grid_y(y)]
    drawn = [_mark(one, x, y) for one in marks]
    return frame(name, title, description, [*grid, *drawn])


def frame(name: str, title: str, description: str, parts: Sequence[str], height: float = HEIGHT) -> str:
    """Return the parts of a drawing as one named and described ``svg`` element. ``name`` is ours, never foreign."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description, 600)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def across(x: Axis, value: float) -> float:
    """Return the horizontal position of a value in the drawing."""
    return _LEFT + x.part(value) * (WIDTH - _LEFT - _RIGHT)


def _up(y: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - y.part(value) * (HEIGHT - _BOTTOM - _TOP)


def text_at(x: float, y: float, text: str, anchor: str = "start", most: int = 60) -> str:
    """Return a text; ``anchor`` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text, most)}</text>'


def line_between(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line of one of the page's styles."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _grid_x(x: Axis) -> str:
    bottom = HEIGHT - _BOTTOM
    parts = [line_between(_LEFT, bottom, WIDTH - _RIGHT, bottom, "axis")]
    for value, label in x.ticks():
        at = across(x, value)
        parts += [line_between(at, bottom, at, bottom + 4, "axis"), text_at(at, bottom + 17, label, "middle")]
    return "".join([*parts, text_at((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x.label, "middle")])


def _grid_y(y: Axis) -> str:
    parts = []
    for value, label in y.ticks():
        at = _up(y, value)
        parts += [line_between(_LEFT, at, WIDTH - _RIGHT, at, "grid"), text_at(_LEFT - 6, at + 4, label, "end")]
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    label = (
        f'<text transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y.label, 60)}</text>'
    )
    return "".join([*parts, label])


def _mark(mark: Mark, x: Axis, y: Axis) -> str:
    style = f"s{mark.slot % SLOTS}"
    at = [(across(x, one), _up(y, other)) for one, other in mark.points]
    parts = []
    if mark.kind == "dots":
        parts.append("".join(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="1.8"/>' for px, py in at))
    elif at:
        parts.append(f'<path class="{style}" d="{_path(at, is_step=mark.kind == "step", floor=HEIGHT - _BOTTOM)}"/>')
    for value, low, high in mark.intervals:
        px, top, bottom = across(x, value), _up(y, high), _up(y, low)
        parts.append(line_between(px, top, px, bottom, f"{style} bar"))
        parts += [line_between(px - 4, edge, px + 4, edge, f"{style} bar") for edge in (top, bottom)]
    if mark.kind == "line":
        parts.append("".join(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in at[:200]))
    return "".join(parts)


def _path(at: Sequence[tuple[float, float]], *, is_step: bool, floor: float) -> str:
    if not is_step:
        return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in at)
    return f"M{at[0][0]:.1f} {floor:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in at)


def key(slot: int) -> str:
    """Return the sample of a line for a legend."""
    return (
        '<svg class="key" viewBox="0 0 28 10" aria-hidden="true">'
        f'<path class="s{slot % SLOTS}" d="M1 5H27"/><circle class="s{slot % SLOTS}" cx="14" cy="5" r="3"/></svg>'
    )
