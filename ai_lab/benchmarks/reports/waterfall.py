"""Some requests side by side, each from its own beginning: the wait for the first token, then every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ai_lab.benchmarks.reports.requests import WHOLE
from ai_lab.benchmarks.reports.series import Bar
from ai_lab.benchmarks.reports.svg import SLOTS, Axis, across, frame, line_between, text_at

_TOP = 8
_ROW = 10


def waterfall_svg(bars: Sequence[Bar], levels: Mapping[int, float]) -> str:
    """Return one line a request, by arm and level; the level is written where it begins."""
    ordered = sorted(bars, key=lambda one: (one.arm, one.level, one.index))
    axis = Axis.over([0.0, *(one.end_ms for one in ordered)], "ms", from_zero=True)
    bottom = _TOP + _ROW * len(ordered)
    parts, before = [], None
    for number, bar in enumerate(ordered):
        top = _TOP + _ROW * number
        if (bar.arm, bar.level) != before and len(levels) > 1:
            parts.append(text_at(across(axis, 0) - 6, top + 9, f"@ {levels.get(bar.level, bar.level):g}", "end"))
        before = (bar.arm, bar.level)
        parts.append(_row(axis, bar, top))
    parts.append(line_between(across(axis, axis.low), bottom, across(axis, axis.high), bottom, "axis"))
    for value, label in axis.ticks():
        at = across(axis, value)
        parts += [line_between(at, bottom, at, bottom + 4, "axis"), text_at(at, bottom + 17, label, "middle")]
    parts.append(text_at(across(axis, axis.high / 2), bottom + 34, "ms since the beginning of the request", "middle"))
    said = f"{len(ordered)} requests by arm and level; the longest took {max(one.end_ms for one in ordered):.0f} ms"
    return frame("timeline", "Token timeline", said, parts, bottom + 42)


def _row(axis: Axis, bar: Bar, top: float) -> str:
    slot = bar.arm % SLOTS
    first = bar.tokens_ms[0] if bar.tokens_ms else bar.end_ms
    start, until, end = (across(axis, one) for one in (0.0, first, bar.end_ms))
    middle = top + _ROW / 2
    parts = [
        f'<rect class="f{slot} pale" x="{start:.1f}" y="{top + 2}" width="{max(until - start, 0):.1f}" height="6"/>',
        line_between(until, middle, end, middle, f"s{slot}"),
    ]
    # One path for all tokens of a request: a tenth of the size of as many lines.
    ticks = "".join(f"M{across(axis, one):.1f} {top + 1.5}v7" for one in bar.tokens_ms)
    parts.append(f'<path class="s{slot} tick" d="{ticks}"/>' if ticks else "")
    if bar.status not in WHOLE:
        parts += [
            line_between(end - 4, top + 1, end + 4, top + 9, "bad"),
            line_between(end - 4, top + 9, end + 4, top + 1, "bad"),
        ]
    return "".join(parts)
