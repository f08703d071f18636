"""Charges as CSV: one line for each attempt that reached a model.

Money has all its digits. An empty field is "not known". Text that a spreadsheet would take for a formula has an
apostrophe in front.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from ai_lab.costs.prices import NANO
from ai_lab.costs.repository import Row, charges_after
from ai_lab.database import Database

_PAGE = 1000
_AS_STORED = (
    *("id", "call_id", "source", "service", "model", "alias", "session_id", "is_local", "outcome"),
    *("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens"),
    *("price_source", "price_version", "total_ms", "energy_joules"),
)
_PRICES = ("input", "cached_input", "cache_write", "output", "reasoning", "request")
COLUMNS = (
    "at",
    *_AS_STORED[:14],
    "cost_usd",
    *(f"price_{kind}_usd" if kind == "request" else f"price_{kind}_usd_per_million" for kind in _PRICES),
    *_AS_STORED[14:],
    "electricity_usd",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets take these too


async def charges_as_csv(database: Database, start: date | None, end: date | None) -> AsyncGenerator[str, None]:
    """Yield the file in pieces; no connection is held while a piece is on its way."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    after: tuple[datetime, str] | None = None
    while True:
        async with database.reading() as db:
            rows = await charges_after(db, after, start, end, limit=_PAGE)
        writer.writerows(_line(row) for row in rows)
        yield file.getvalue()
        if len(rows) < _PAGE:
            return
        file.seek(0)
        file.truncate()
        after = rows[-1]["at"], rows[-1]["id"]


def _line(row: Row) -> list[Any]:
    price = row["price"] or {}
    stored = [_safe(row[name]) for name in _AS_STORED]
    return [
        row["at"].isoformat(),
        *stored[:14],
        _dollars(row["cost_nanousd"]),
        *(price.get(kind) for kind in _PRICES),
        *stored[14:],
        _dollars(row["electricity_nanousd"]),
    ]


def _dollars(nanousd: int | None) -> str | None:
    return None if nanousd is None else f"{Decimal(nanousd) / NANO:.9f}"


def _safe(value: Any) -> Any:
    """Return text so that no spreadsheet runs it as a formula; numbers stay numbers."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip().startswith(_FORMULA) or value.startswith(_FORMULA) else value
