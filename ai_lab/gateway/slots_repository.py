"""All SQL about places at a service that several servers share. Postgres only: SQLite has one server."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database import Database
from ai_lab.errors import DatabaseUnavailable
from ai_lab.gateway.tables import gateway_slots as slots

# Two servers that count at the same instant would both see the last place free: so they count one after the other. The
# clock is the database's, which all servers share. A place lost with a power cut is taken again.
_TURN = text(
    "SELECT set_config('synchronous_commit', 'off', true), pg_advisory_xact_lock(hashtextextended(:service, 7102))"
)
_TAKE = text("""
INSERT INTO gateway_slots (id, service, expires_at)
SELECT CAST(:id AS text), CAST(:service AS text), extract(epoch FROM clock_timestamp()) + CAST(:seconds AS float8)
WHERE :most > (
  SELECT count(*) FROM gateway_slots
  WHERE service = CAST(:service AS text) AND expires_at > extract(epoch FROM clock_timestamp())
)
""")
_RENEW = text("""
UPDATE gateway_slots SET expires_at = extract(epoch FROM clock_timestamp()) + CAST(:seconds AS float8)
WHERE id = ANY(CAST(:ids AS text[]))
""")
_PURGE = text("DELETE FROM gateway_slots WHERE expires_at < extract(epoch FROM clock_timestamp())")


class SlotRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def take(self, slot: str, service: str, most: int, seconds: float) -> bool:
        """Take a place for ``seconds`` and return whether there was one."""
        await self._db.execute(_TURN, {"service": service})
        values = {"id": slot, "service": service, "most": most, "seconds": seconds}
        return bool((await self._db.execute(_TAKE, values)).rowcount)

    async def renew(self, ids: Sequence[str], seconds: float) -> None:
        """Keep places for ``seconds`` from now on, and clear away those of servers that are gone."""
        await self._db.execute(_RENEW, {"ids": list(ids), "seconds": seconds})
        await self._db.execute(_PURGE)

    async def free(self, ids: Sequence[str]) -> None:
        """Give places back."""
        await self._db.execute(delete(slots).where(slots.c.id.in_(ids)))


class SharedSlots:
    """Places in the database, a short transaction each. Every method raises ``LabError`` where it cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, slot: str, service: str, most: int, seconds: float) -> bool:
        """Take a place and return whether there was one."""
        try:
            async with self._database.transaction() as db:
                return await SlotRepository(db).take(slot, service, most, seconds)
        except SQLAlchemyError as error:
            raise _unusable() from error

    async def renew(self, ids: Sequence[str], seconds: float) -> None:
        """Keep places."""
        try:
            async with self._database.transaction() as db:
                await SlotRepository(db).renew(ids, seconds)
        except SQLAlchemyError as error:
            raise _unusable() from error

    async def free(self, ids: Sequence[str]) -> None:
        """Give places back."""
        try:
            async with self._database.transaction() as db:
                await SlotRepository(db).free(ids)
        except SQLAlchemyError as error:
            raise _unusable() from error


def _unusable() -> DatabaseUnavailable:
    return DatabaseUnavailable("Places at services cannot be counted in the database.")
