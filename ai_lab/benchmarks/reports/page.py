"""A report as one HTML file that needs nothing else: no network, no script, light and dark, readable without sight."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports.charts import Chart, charts
from ai_lab.benchmarks.reports.outline import Outline, Table, every_metric, outline
from ai_lab.benchmarks.reports.series import series_of
from ai_lab.benchmarks.reports.style import PAGE, SUMMARY
from ai_lab.benchmarks.reports.svg import escape, key
from ai_lab.benchmarks.schemas import Run

#: Should a hole in the escaping ever be found: nothing may load, and nothing may run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SHORT = 16  # characters that stay on one line


def page_text(run: Run, records: Iterable[Record], samples: Iterable[Sample]) -> str:
    """Return the whole page; records and samples are read once."""
    said = outline(run)
    series = series_of(records, samples, is_open=run.plan.load.mode != "closed")
    body = chain(
        [f"<h1>{escape(said.title)}</h1>", summary(said)],
        (_section(title, _table(table)) for title, table in said.tables),
        [_section("Failures and notes", _list(said.failures))] if said.failures else [],
        (_figure(chart) for chart in charts(run, series)),
        [_every_metric(run)],
        [_section("Machine", _table(said.machine))] if said.machine else [],
        [_section("Definitions", _table(_definitions(run)))] if run.report and run.report.definitions else [],
        [_section("Method", f"<p>{escape(said.method, 2000)}</p>")],
        [_section("Origin", _table(Table("", ["What", "Value"], [list(pair) for pair in said.origins])))],
        [_section("Again", f"<pre>{escape(said.rerun)}</pre>")],
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(f"{said.grade}: {said.title}")}</title>'
        f'<style>{SUMMARY}{PAGE}</style></head><body><main class="ailab-bench">\n'
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def summary(said: Outline) -> str:
    """Return grade, reasons, verdicts and headline figures as a piece of HTML; notebooks show it alone."""
    grade = said.grade.lower().replace(" ", "-")
    parts = [f'<p class="grade {grade}"><strong>{said.grade}</strong> {escape(said.meaning, 600)}</p>']
    if said.reasons:
        items = (
            f'<li class="{severity}"><b>{severity}</b> {escape(text, 1200)}</li>' for severity, text in said.reasons
        )
        parts.append(f'<ul class="reasons">{"".join(items)}</ul>')
    if said.verdicts:
        items = (
            f'<li><b class="v-{verdict}">{verdict}</b> {escape(text, 700)}</li>' for verdict, text in said.verdicts
        )
        parts.append(f'<ul class="verdicts">{"".join(items)}</ul>')
    if said.headline:
        parts.append(_table(said.headline))
    return "".join(parts)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(one, 1000)}</li>" for one in items) + "</ul>"


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.caption, 400)}</caption>" if table.caption else ""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in table.columns)
    rows = (f'<tr><th scope="row">{escape(first)}</th>{"".join(map(_cell, rest))}</tr>' for first, *rest in table.rows)
    # A table that is wider than the window scrolls by itself, with the keyboard too.
    return (
        f'<div class="wide" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        + "".join(f"<p class=note>{escape(one, 400)}</p>" for one in table.notes)
    )


def _cell(text: str) -> str:
    value, bracket, interval = escape(text, 400).partition(" [")
    short = " class=n" if len(text) <= _SHORT else ""
    return f"<td>{value} <span>[{interval}</span></td>" if bracket else f"<td{short}>{value}</td>"


def _figure(chart: Chart) -> str:
    legend = "".join(f"<li>{key(slot)} {escape(name)}</li>" for slot, name in chart.legend)
    caption = f"<ul class=legend>{legend}</ul>" if legend else ""
    caption += "".join(f"<p class=note>{escape(one, 300)}</p>" for one in chart.notes)
    table = f"<details><summary>As a table</summary>{_table(chart.table)}</details>" if chart.table else ""
    return _section(chart.title, f"<figure>{chart.svg}<figcaption>{caption}</figcaption></figure>{table}")


def _every_metric(run: Run) -> str:
    tables = "".join(_table(every_metric(cell)) for cell in (run.report.cells if run.report else []))
    if not tables:
        return ""
    summary_line = "<summary>Every metric of every arm and level</summary>"
    return _section("All figures", f"<details>{summary_line}{tables}</details>")


def _definitions(run: Run) -> Table:
    definitions = run.report.definitions if run.report else {}
    rows = [
        [name, one.get("unit", ""), one.get("better", ""), one.get("formula", "")] for name, one in definitions.items()
    ]
    return Table("", ["Metric", "Unit", "Better", "Formula"], rows)
