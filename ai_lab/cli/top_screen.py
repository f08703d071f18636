"""The frame of ``ai-lab top``: whatever the size of the terminal, its most telling lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from rich.text import Text

from ai_lab.cli import figures
from ai_lab.cli.address import Address, Trouble
from ai_lab.cli.figures import Signs, plain
from ai_lab.cli.gauges import NOTES_FROM, Gauges
from ai_lab.cli.operations import Operation, slowest
from ai_lab.cli.reading import Reading
from ai_lab.cli.trends import Trends
from ai_lab.clock import now

_COLUMN = 9
_TWO_COLUMNS_FROM = 44
_LEAST_ROOM = 3  # a blank line, the head of the table and a row
_PRINTED_ROOM = 14


@dataclass(frozen=True)
class View:
    """What a frame shows.

    Args:
        reading: the last one with an answer; None where there was none yet.
        trouble: why there is no answer now; ``lost_at`` says since when.
    """

    address: Address
    trends: Trends = field(default_factory=Trends)
    reading: Reading | None = None
    trouble: Trouble | None = None
    lost_at: datetime | None = None


def draw(view: View, width: int, height: int | None, signs: Signs) -> Text:
    """Return a frame, no line of which is wider than ``width``.

    Args:
        view: what it shows.
        width: of the terminal.
        height: of the screen that the frame fills; None: as high as it needs to be, for one that is printed.
        signs: what it is drawn with.
    """
    lines = [_header(view, width, signs), *_notices(view, width, signs, is_live=height is not None)]
    if view.reading:
        gauges = Gauges(view.trends, width, signs, is_old=view.trouble is not None)
        lines += [Text(), *gauges.lines(view.reading)]
        lines += _slowest(view.reading, width, _PRINTED_ROOM if height is None else height - len(lines) - 2, gauges)
    if height is not None:
        lines = lines[: max(0, height - 1)]
        lines += [Text()] * (height - len(lines) - 1) + [_footer(view)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)


def _header(view: View, width: int, signs: Signs) -> Text:
    reading = view.reading
    line = Text().append("AI Lab", "bold")
    if view.trouble:
        line.append(f"  {signs.unhealthy} no connection", figures.style_of("unhealthy"))
    elif reading is None:
        line.append("  connecting", "dim")
    else:
        line.append(f" {plain(reading.health.version)}", "dim")
        line.append(
            f"  {signs.of(reading.health.status)} {plain(reading.health.status)}",
            figures.style_of(reading.health.status),
        )
    line.append(f"  {plain(view.address.url)}", "cyan")
    if reading and not view.trouble:
        line.append(f"  up {figures.span(reading.health.uptime_seconds)}")
    clock = f"{now().astimezone():%H:%M:%S}"
    room = width - line.cell_len
    return line.append(clock.rjust(room), "dim") if room >= len(clock) + 2 else line


def _notices(view: View, width: int, signs: Signs, *, is_live: bool) -> Iterator[Text]:
    """Yield what is wrong, and what to do about it."""
    if view.trouble and view.lost_at:
        if is_live:
            gone = figures.span((now() - view.lost_at).total_seconds())
            yield Text(f"no connection since {view.lost_at.astimezone():%H:%M:%S} ({gone}), trying again", "bold red")
        yield from _wrapped(view.trouble.what, width)
        yield from _wrapped(f"{signs.remedy} {view.trouble.remedy}", width)
    elif view.reading:
        for component in view.reading.health.components:
            if component.status != "healthy":
                what = f"{signs.of(component.status)} {component.component}: {component.detail}"
                yield Text(plain(what), figures.style_of(component.status))
                if component.remedy:
                    yield Text(plain(f"  {signs.remedy} {component.remedy}"))


def _slowest(reading: Reading, width: int, room: int, gauges: Gauges) -> list[Text]:
    """Return a table of the slowest operations, with as many rows as there is room for, or nothing."""
    if reading.performance is None or room < _LEAST_ROOM:
        return []
    columns = ["count", "failed", "p50", "p95", "max"]
    if width < NOTES_FROM:
        columns = ["count", "p95"] if width >= _TWO_COLUMNS_FROM else ["p95"]
    name_width = width - _COLUMN * len(columns)
    head = Text().append("Slowest in the last hour"[: name_width - 1].ljust(name_width), "bold")
    head.append("".join(column.rjust(_COLUMN) for column in columns), "dim")
    rows = [_operation(one, name_width, columns, gauges) for one in slowest(reading.performance)[: room - 2]]
    return [Text(), head, *(rows or [Text("nothing yet", "dim")])]


def _operation(one: Operation, name_width: int, columns: list[str], gauges: Gauges) -> Text:
    name = Text(plain(one.name), gauges.style(""))
    name.truncate(name_width - 1, overflow="ellipsis", pad=True)
    line = Text().append_text(name).append(" ")
    cells = {
        "count": f"{one.count:,}",
        "failed": f"{one.errors:,}",
        "p50": figures.latency(one.durations.p50_ms),
        "p95": figures.latency(one.durations.p95_ms),
        "max": figures.latency(one.durations.max_ms),
    }
    for column in columns:
        line.append(cells[column].rjust(_COLUMN), gauges.style("red" if column == "failed" and one.errors else ""))
    return line


def _footer(view: View) -> Text:
    line = Text().append("q", "bold").append(" quit", "dim")
    if view.reading and view.reading.metrics and not view.trouble:
        metrics = view.reading.metrics
        age = (now() - view.reading.taken_at).total_seconds() + metrics.sample_age_seconds
        line.append(f"   sample {age:.0f} s old, a new one every {metrics.interval_seconds:.0f} s", "dim")
    return line


def _wrapped(text: str, width: int) -> Iterator[Text]:
    for line in textwrap.wrap(plain(text), max(1, width)):
        yield Text(line, "red")
