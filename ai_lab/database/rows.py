"""Results as plain dictionaries, so that only repositories know the database library."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Result


def first(result: Result[Any]) -> dict[str, Any] | None:
    """Return the first row by column name, if there is one."""
    row = result.mappings().first()
    return None if row is None else {str(key): value for key, value in row.items()}


def every(result: Result[Any]) -> list[dict[str, Any]]:
    """Return all rows by column name."""
    return [{str(key): value for key, value in row.items()} for row in result.mappings()]
