"""A report as Markdown (GitHub's flavour), for pull requests and notes: what matters first."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ai_lab.benchmarks.reports.outline import Outline, Table, comparison_rows, outline
from ai_lab.benchmarks.schemas import Run

# Within a word an underscore means nothing, and a bracket only before what it would link to.
_MARKS = re.compile(r"([\\`*<>|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[]))")


def markdown_text(run: Run) -> str:
    """Return the report; foreign text is escaped so that it can neither format nor link."""
    said = outline(run)
    parts = [f"# {_text(said.title)}", _grade(said)]
    if said.verdicts:
        parts += ["## Verdicts", _list(f"**{verdict}**: {_text(text)}" for verdict, text in said.verdicts)]
    if said.headline:
        parts += ["## Figures", _table(said.headline)]
    for title, table in said.tables:
        parts += [f"## {title}", _table(table)]
    if said.failures:
        parts += ["## Failures and notes", _list(_line(one) for one in said.failures)]
    if run.report and run.report.comparisons:
        parts += ["## Comparisons", _table(comparison_rows(run.report.comparisons))]
    if said.machine:
        parts += ["## Machine", _table(said.machine)]
    parts += ["## Method", _line(said.method)]
    parts += ["## Origin", _table(Table("", ["What", "Value"], [list(pair) for pair in said.origins]))]
    parts += ["## Again", f"```sh\n{said.rerun.replace('`', '')}\n```"]
    return "\n\n".join(parts) + "\n"


def _grade(said: Outline) -> str:
    lines = [f"**Grade: {said.grade}** ({_text(said.meaning)})"]
    if said.reasons:
        lines += ["", _list(f"**{severity}**: {_text(text)}" for severity, text in said.reasons)]
    return "\n".join(lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {one}" for one in items)


def _table(table: Table) -> str:
    lines = [_row(table.columns), _row(["---"] * len(table.columns)), *(_row(map(_text, row)) for row in table.rows)]
    return "\n".join([*lines, *("\n" + _line(one) for one in (table.caption, *table.notes) if one)])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(text: str) -> str:
    """Return one line of plain text as Markdown that shows exactly that: no format, no link."""
    return _MARKS.sub(r"\\\1", text).replace("&", "&amp;").replace("://", r":\/\/").replace("www.", r"www\.")


def _line(text: str) -> str:
    """Return ``_text`` for the beginning of a line, where more marks mean something: lists and underlines."""
    return re.sub(r"^(\d*)([-+=#\[]|[.)](?=\s))", r"\1\\\2", _text(text))
