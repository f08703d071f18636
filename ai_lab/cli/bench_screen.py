"""A run on the terminal: the grade first, then verdicts and figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ai_lab.benchmarks.reports.outline import Table as PlainTable
from ai_lab.benchmarks.reports.outline import outline
from ai_lab.benchmarks.schemas import ReportBody, Run
from ai_lab.cli.figures import plain, size

_COLOURS = {
    "VALID": "green",
    "SUSPECT": "yellow",
    "INVALID": "red",
    "invalid": "red",
    "suspect": "yellow",
    "faster": "green",
    "slower": "red",
}
_GAP = 2
_LEAST_COLUMN = 16
_MOST_FAILURES = 8
_NOTE = re.compile(r" \[(?:no interval: )?(note \d+)\]")
_HAIR_SPACE = "\u202f"  # which not every terminal has


def draw_run(run: Run, width: int) -> RenderableType:
    """Return what a run says, in ``width`` columns."""
    said = outline(run)
    parts: list[RenderableType] = [
        Text(_plain(said.title), "bold"),
        Text.assemble((said.grade, f"bold {_COLOURS.get(said.grade, 'default')}"), _plain(f"  {said.meaning}")),
    ]
    parts += [_line(severity, text) for severity, text in said.reasons]
    if said.verdicts:
        parts += [Text(), *(_line(verdict, text) for verdict, text in said.verdicts)]
    tables = [said.headline] if said.headline else []
    for table in (*tables, *(one for _, one in said.tables)):
        parts += [Text(), *_drawn(table, width)]
    if run.report:
        parts += [Text(), *(Text(_plain(line)) for line in _models(run.report))]
    if said.failures:
        parts += [Text(), *(Text(_plain(text)) for text in said.failures[:_MOST_FAILURES])]
        if (more := len(said.failures) - _MOST_FAILURES) > 0:
            parts.append(Text(f"and {more} more, in the report"))
    parts += [Text(), Text(_plain(said.method), "dim"), *_ways_on(run)]
    return Group(*parts)


def draw_list(runs: Iterable[Run], width: int | None) -> RenderableType:
    """Return the list of runs; ids are never cut, for they are what the other commands want.

    Args:
        runs: the newest first.
        width: of the terminal; None: whoever reads it has room for long lines.
    """
    rows = []
    for run in runs:
        grade = Text((run.grade or "-").ljust(7), _COLOURS.get(run.grade or "", "default"))
        when = run.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        done = f"{run.progress.done}/{run.progress.total}"
        rows.append((Text(f"{run.id}  {when}  {run.status:<11}  "), grade, done, _plain(run.title)))
    longest = max((len(done) for _, _, done, _ in rows), default=0)
    lines = []
    for start, grade, done, title in rows:
        line = Text.assemble(start, grade, f"  {done:>{longest}}  {title}")
        if width is not None and line.cell_len > width:
            title_line = Text(f"    {title}")
            title_line.truncate(width, overflow="ellipsis")
            line = Text.assemble(start, grade, "\n", title_line)
        lines.append(line)
    return Group(*lines)


def _ways_on(run: Run) -> Iterator[Text]:
    compared = run.report.comparisons if run.report else []
    if needed := [one.n_blocks + one.blocks_needed for one in compared if one.blocks_needed]:
        yield Text(f"To tell more: ai-lab bench compare … --blocks {min(needed)} --iterations {min(needed)}", "dim")
    if run.status in {"queued", "running"}:
        yield Text(f"It goes on. Stop it: ai-lab bench cancel {run.id}", "dim")
        return
    if run.status in {"cancelled", "interrupted", "failed"}:
        yield Text(f"Go on with it: ai-lab bench resume {run.id}", "dim")
    yield Text(f"More: ai-lab bench report {run.id} -o run.html", "dim")


def _models(report: ReportBody) -> Iterator[str]:
    """Yield what each model is, as far as its server tells: what one who chooses wants beside its speed."""
    for arm, seen in report.provenance.get("targets", {}).items():
        before = seen.get("before", {})
        known = [before.get("quantization")]
        if isinstance(count := before.get("parameters"), int) and count:
            known.append(f"{count / 1e9:.2g} billion parameters")
        if isinstance(count := before.get("size_bytes"), int) and count:
            known.append(size(count))
        for name, unit in (("context_tokens", "tokens of context"), ("threads", "threads"), ("slots", "slots")):
            if isinstance(count := before.get(name), int):
                known.append(f"{count} {unit}")
        known.append(" ".join(str(part) for part in (before.get("server"), before.get("version")) if part))
        if said := ", ".join(str(one) for one in known if one):
            yield f"{arm}: {said}"
    used = _of_busy(report, "target_rss_bytes")
    if used:
        yield f"Memory of the servers' processes: {size(used)} at most"


def _of_busy(report: ReportBody, figure: str) -> float | None:
    values: Any = report.machine.get("busy", {}).get(figure)
    return values.get("max") if isinstance(values, dict) else None


def _line(kind: str, text: str) -> Table:
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(justify="right", min_width=8)
    grid.add_column()
    grid.add_row(Text(kind, _COLOURS.get(kind, "default")), Text(_plain(text)))
    return grid


def _drawn(table: PlainTable, width: int) -> Iterator[RenderableType]:
    columns = [_plain(name) for name in table.columns]
    rows = [[_NOTE.sub(r" (\1)", _plain(cell)) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    if sum(widths) + _GAP * len(widths) <= width:
        yield _grid(columns, rows)
    else:
        yield from _turned(columns, rows, width)
    for note in (table.caption, *table.notes):
        if note:
            yield Text(_plain(note), "dim")


def _turned(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[RenderableType]:
    """Yield the table with a row for each column, and as many of its rows side by side as fit."""
    label = max(map(len, columns))
    # The first column is a name, which may be folded; figures may not.
    widths = [max(map(len, row)) for row in rows]
    if label + sum(widths) + _GAP * len(rows) > width:
        widths = [max(_LEAST_COLUMN, *map(len, row[1:])) for row in rows]
    first = 0
    while first < len(rows):
        last, used = first + 1, label + _GAP + widths[first]
        while last < len(rows) and used + _GAP + widths[last] <= width:
            used += _GAP + widths[last]
            last += 1
        if first:
            yield Text()
        across = list(zip(columns, *rows[first:last], strict=True))
        yield _grid(across[0], across[1:], widths=[label, *widths[first:last]])
        first = last


def _grid(columns: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] | None = None) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for number, name in enumerate(columns):
        drawn.add_column(Text(name), max_width=widths[number] if widths else None, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _plain(text: str) -> str:
    return plain(text.replace(_HAIR_SPACE, " "))
