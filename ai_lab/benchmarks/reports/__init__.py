"""Owns what people and programs read of a run: JSON, JSONL, CSV, Markdown, HTML, benchstat. Computes no figure.

It runs inside the server, so it is plain Python and loads neither numpy nor a plotting library.
"""

from ai_lab.benchmarks.reports.earlier import earlier_shape
from ai_lab.benchmarks.reports.formats import NEEDS_RECORDS, Rendered, ReportFormat
from ai_lab.benchmarks.reports.raw import jsonl_line, jsonl_lines
from ai_lab.benchmarks.reports.rendering import render
from ai_lab.benchmarks.reports.schema import json_schema

__all__ = [
    "NEEDS_RECORDS",
    "Rendered",
    "ReportFormat",
    "earlier_shape",
    "json_schema",
    "jsonl_line",
    "jsonl_lines",
    "render",
]
