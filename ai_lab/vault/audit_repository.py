"""All SQL about the audit chain: entries, and its head in the vault's one row."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import every
from ai_lab.vault.tables import vault_audit, vault_state


class Head(NamedTuple):
    """Number and mac of the newest entry; ``(0, "")`` where there is none."""

    sequence: int
    mac: str


class AuditRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def head(self) -> Head:
        """Return the head that the vault's row names."""
        row = (await self._db.execute(select(vault_state.c.audit_sequence, vault_state.c.audit_mac))).first()
        return _head(row)

    async def add(self, row: dict[str, Any]) -> None:
        """Insert an entry and make it the head; the caller's unit of work has locked the vault's row."""
        await self._db.execute(insert(vault_audit).values(row))
        await self._db.execute(update(vault_state).values(audit_sequence=row["sequence"], audit_mac=row["mac"]))

    async def extent(self) -> tuple[Head, int]:
        """Return the head and the highest number of any entry (0: none), as they are at one instant."""
        highest = select(func.coalesce(func.max(vault_audit.c.sequence), 0)).scalar_subquery()
        row = (await self._db.execute(select(vault_state.c.audit_sequence, vault_state.c.audit_mac, highest))).first()
        return _head(row), int(row[2] if row else (await self._db.execute(select(highest))).scalar_one())

    async def newest(self, limit: int, before: int | None = None) -> list[dict[str, Any]]:
        """Return entries, the newest first, older than number ``before``."""
        statement = select(vault_audit).order_by(vault_audit.c.sequence.desc()).limit(limit)
        if before is not None:
            statement = statement.where(vault_audit.c.sequence < before)
        return every(await self._db.execute(statement))

    async def following(self, after: int, up_to: int, limit: int) -> list[dict[str, Any]]:
        """Return entries with numbers above ``after``, up to ``up_to`` and it, the oldest first."""
        statement = select(vault_audit).where(vault_audit.c.sequence > after, vault_audit.c.sequence <= up_to)
        return every(await self._db.execute(statement.order_by(vault_audit.c.sequence).limit(limit)))

    async def newest_of(self, action: str) -> int:
        """Return the number of the newest entry of an action, 0 where there is none."""
        statement = select(func.coalesce(func.max(vault_audit.c.sequence), 0)).where(vault_audit.c.action == action)
        return int((await self._db.execute(statement)).scalar_one())


def _head(row: Row[*tuple[Any, ...]] | None) -> Head:
    return Head(row.audit_sequence, row.audit_mac) if row and row.audit_sequence else Head(0, "")
