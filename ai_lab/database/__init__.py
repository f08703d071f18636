"""Owns the connection to the database, units of work and migrations. Knows no capability's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_lab.database.address import database_address
from ai_lab.database.engine import Database
from ai_lab.database.orm import metadata

if TYPE_CHECKING:
    from ai_lab.conversation_db import DatabaseManager

    db_manager: DatabaseManager

__all__ = ["Database", "database_address", "db_manager", "metadata"]


def __getattr__(name: str) -> Any:
    """Give earlier scripts the one object that they import from here."""
    if name == "db_manager":
        from ai_lab.conversation_db import db_manager  # noqa: PLC0415 - lazy: it stands above this package

        return db_manager
    raise AttributeError(f"module 'ai_lab.database' has no attribute {name!r}")
