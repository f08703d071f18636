"""The report of an import for people."""

from __future__ import annotations

import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ai_lab.importer.report import COUNTS, FileReport, ImportReport

_LINES_SHOWN = 50
_WIDTH = 140  # where there is no terminal


def print_report(report: ImportReport, console: Console | None = None) -> None:
    """Print what was done: a table, what was damaged or renamed, and the counts on one line."""
    console = console or Console(soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(_table(report))
    for heading, lines in (
        ("Could not be imported", [line for file in report.files for line in _damages(file)]),
        ("Imported under another name", [line for file in report.files for line in _renamed(file)]),
        (
            "Deleted here since an earlier import, so left out",
            [line for file in report.files for line in _deleted(file)],
        ),
        ("Warnings", [line for file in report.files for line in file.remarks]),
        ("Left where it is", [line for file in report.files for line in file.notes]),
    ):
        if lines:
            console.print(f"\n[bold]{heading}[/bold]")
            for line in lines[:_LINES_SHOWN]:
                console.print(f"  {escape(_printable(line))}", highlight=False)
            if len(lines) > _LINES_SHOWN:
                console.print(f"  … and {len(lines) - _LINES_SHOWN} more; --report FILE has them.", highlight=False)
    console.print("\n" + escape(_summary(report)), highlight=False)


def _table(report: ImportReport) -> Table:
    """Return one row per file in a rehearsal, which should say exactly what would come in; else one per kind."""
    table = Table(
        title="What would be imported" if report.dry_run else "Imported", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("Source", overflow="fold", min_width=18)
    for name in COUNTS:
        table.add_column(name, justify="right")
    groups: dict[str, list[FileReport]] = {}
    for file in report.files:
        groups.setdefault(_printable(file.path) if report.dry_run else file.kind, []).append(file)
    for name, files in groups.items():
        table.add_row(escape(name), *(f"{report.total(count, files):,}" for count in COUNTS))
    return table


def _summary(report: ImportReport) -> str:
    counts = ", ".join(f"{report.total(name):,} {name}" for name in COUNTS)
    if report.stopped:
        return f"Stopped: {report.stopped} So far: {counts}. Run the same command again to import the rest."
    if report.dry_run:
        return f"Nothing was changed. {report.database} would get: {counts}."
    if not any(report.total(name) for name in ("conversations", "messages", "states", "measurements")):
        return f"Nothing new came in; what was imported before is skipped: {counts}."
    return f"{report.database} got: {counts}."


def _damages(file: FileReport) -> list[str]:
    lines = []
    for damage in file.damages:
        where = ", ".join(f"{name} {number}" for name, number in damage["position"].items())
        lines.append(f"{damage['origin']}: {where + ': ' if where else ''}{damage['reason']}")
    if file.damaged > len(lines):
        lines.append(f"{file.path}: {file.damaged - len(lines)} more")
    return lines


def _renamed(file: FileReport) -> list[str]:
    renamed = [session for session in file.sessions if "named_in_source" in session and session["added"]]
    return [
        f"{session['named_in_source']} ({session['holds']}) in {file.path} → {session['session_id']}"
        for session in renamed
    ]


def _deleted(file: FileReport) -> list[str]:
    return [f"{session['session_id']} in {file.path}" for session in file.sessions if session["action"] == "deleted"]


def _printable(text: str) -> str:
    """Return the text without control characters and half surrogates, which a terminal must not get from a file."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
