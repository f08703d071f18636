"""Rows in and out: inserts that know conflicts, and results as plain dictionaries."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Result, Table
from sqlalchemy.ext.asyncio import AsyncConnection


def insert_into(db: AsyncConnection, table: Table) -> Any:
    """Return an INSERT with ``on_conflict_do_…``, which both databases have but the common one has not."""
    if db.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert  # noqa: PLC0415 - only the dialect in use is loaded
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]  # noqa: PLC0415 - as above
    return insert(table)


def first(result: Result[Any]) -> dict[str, Any] | None:
    """Return the first row by column name, if there is one."""
    row = result.mappings().first()
    return None if row is None else {str(key): value for key, value in row.items()}


def every(result: Result[Any]) -> list[dict[str, Any]]:
    """Return all rows by column name."""
    return [{str(key): value for key, value in row.items()} for row in result.mappings()]
