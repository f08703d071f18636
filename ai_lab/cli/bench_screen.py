"""A run on the terminal: the grade first, then verdicts and figures."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ai_lab.benchmarks import schemas
from ai_lab.benchmarks.reports.outline import Table as PlainTable
from ai_lab.benchmarks.reports.outline import outline
from ai_lab.benchmarks.schemas import Run
from ai_lab.cli.figures import plain

_COLOURS = {
    "VALID": "green",
    "SUSPECT": "yellow",
    "INVALID": "red",
    "invalid": "red",
    "suspect": "yellow",
    "faster": "green",
    "slower": "red",
}


def draw_run(run: Run) -> RenderableType:
    """Return what a run says."""
    said = outline(run)
    parts: list[RenderableType] = [
        Text(plain(said.title), "bold"),
        Text.assemble((said.grade, f"bold {_COLOURS.get(said.grade, 'default')}"), plain(f"  {said.meaning}")),
    ]
    parts += [_line(severity, text) for severity, text in said.reasons]
    if said.verdicts:
        parts += [Text(), *(_line(verdict, text) for verdict, text in said.verdicts)]
    tables = [said.headline] if said.headline else []
    for table in (*tables, *(one for _, one in said.tables if one.caption != "" or one.rows)):
        if table.columns[0] != "Figure":  # the machine's own figures fill a screen: they are in the reports
            parts += [Text(), _table(table)]
    if said.failures:
        parts += [Text(), *(Text(plain(text)) for text in said.failures)]
    parts += [Text(), Text(plain(said.method), "dim"), Text(plain(f"Report: ai-lab bench report {run.id}"), "dim")]
    return Group(*parts)


def draw_list(runs: Iterable[Run]) -> RenderableType:
    """Return the list of runs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Run", "When", "State", "Grade", "Requests", "What"):
        table.add_column(name, no_wrap=name != "What")
    for run in runs:
        grade = Text(run.grade or "-", _COLOURS.get(run.grade or "", "default"))
        when = run.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        progress = f"{run.progress.done} of {run.progress.total}"
        table.add_row(run.id, when, run.status, grade, progress, Text(plain(run.title)))
    return table


def bar() -> Progress:
    """Return a progress bar for a run, on the terminal's error output."""
    from rich.console import Console  # noqa: PLC0415 - the output itself may be a pipe

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def figures_of(progress: schemas.Progress) -> str:
    """Return what the latest request showed."""
    parts = []
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.ttft_ms is not None:
        parts.append(f"first token {progress.ttft_ms:.0f} ms")
    if progress.decode_tps is not None:
        parts.append(f"{progress.decode_tps:.1f} tok/s")
    return ", ".join(parts)


def _line(kind: str, text: str) -> Text:
    return Text.assemble((f"{kind:>8}  ", _COLOURS.get(kind, "default")), plain(text))


def _table(table: PlainTable) -> Group:
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in table.columns:
        drawn.add_column(plain(name))
    for row in table.rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    return Group(drawn, *(Text(plain(note), "dim") for note in (table.caption, *table.notes) if note))
