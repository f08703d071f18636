"""The formats of a report, their media types and file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ReportFormat = Literal["json", "jsonl", "csv", "markdown", "html", "benchstat"]

#: Formats that are made of the raw records or the samples too; the others need the run alone.
NEEDS_RECORDS: frozenset[ReportFormat] = frozenset({"jsonl", "html", "benchstat"})

#: Media type and file suffix.
KINDS: dict[ReportFormat, tuple[str, str]] = {
    "json": ("application/json", ".json"),
    "jsonl": ("application/x-ndjson", ".jsonl"),
    "csv": ("text/csv; charset=utf-8", ".csv"),
    "markdown": ("text/markdown; charset=utf-8", ".md"),
    "html": ("text/html; charset=utf-8", ".html"),
    "benchstat": ("text/plain; charset=utf-8", ".txt"),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A report as bytes, with what an HTTP answer or a file needs to know of it."""

    content: bytes
    media_type: str
    file_name: str


def file_name(run_id: str, fmt: ReportFormat) -> str:
    """Return a file name that is safe on every system and in a header, whatever the id is."""
    return f"benchmark-{re.sub(r'[^A-Za-z0-9-]', '_', run_id)[:64]}{KINDS[fmt][1]}"
