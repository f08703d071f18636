"""One way into every format."""

from __future__ import annotations

from collections.abc import Iterable

from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports.benchstat import benchstat_text
from ai_lab.benchmarks.reports.formats import KINDS, Rendered, ReportFormat, file_name
from ai_lab.benchmarks.reports.markdown import markdown_text
from ai_lab.benchmarks.reports.page import page_text
from ai_lab.benchmarks.reports.raw import json_text, jsonl_lines
from ai_lab.benchmarks.reports.rows import csv_text
from ai_lab.benchmarks.schemas import Run


def render(run: Run, fmt: ReportFormat, *, records: Iterable[Record] = (), samples: Iterable[Sample] = ()) -> Rendered:
    """Return the report of a run, in whatever state the run is.

    Args:
        run: As stored, with or without figures.
        fmt: The format.
        records: The raw records in order, read once; only the formats of ``NEEDS_RECORDS`` look at them.
        samples: What was seen of the machine meanwhile; the same.
    """
    if fmt == "json":
        text = json_text(run)
    elif fmt == "jsonl":
        text = "".join(jsonl_lines(run, records, samples))
    elif fmt == "csv":
        text = csv_text(run)
    elif fmt == "markdown":
        text = markdown_text(run)
    elif fmt == "html":
        text = page_text(run, records, samples)
    else:
        text = benchstat_text(run, records)
    # What a model or server calls itself may hold half a surrogate pair, which no encoding can carry.
    return Rendered(text.encode(errors="replace"), KINDS[fmt][0], file_name(run.id, fmt))
