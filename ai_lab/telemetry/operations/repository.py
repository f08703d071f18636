"""All SQL about stored slots of operations.

Every slot of a writer is a row of tier 10 (seconds). Finished spans of 300 s, an hour and a day (UTC) get a row of
their own that sums up the writer's slots within. So whoever reads takes for each span the longest row that fits.
"""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import CompoundSelect, Select, and_, delete, exists, func, select, text, tuple_, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import every, insert_into
from ai_lab.telemetry.tables import operation_slots

#: Lengths of slots in seconds, each a multiple of the one before.
TIERS = (10, 300, 3600, 86400)
_LOCK = 0x0A17AB02

Row = dict[str, Any]
#: Writer and start of a slot.
Key = tuple[str, int]


class OperationRepository:
    """Statements of one unit of work. Rows have ``tier``, ``start``, ``writer_id`` and ``counts``."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def write_alone(self) -> None:
        """Wait until no other process changes slots, so that no late slot slips past a sum; SQLite is so anyway."""
        if self._db.dialect.name == "postgresql":
            await self._db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})

    async def add(self, rows: list[Row]) -> set[Key]:
        """Insert rows of one tier; those that are there stay as they are. Returns what was new."""
        statement = insert_into(self._db, operation_slots).on_conflict_do_nothing()
        found = await self._db.execute(statement.returning(operation_slots.c.writer_id, operation_slots.c.start), rows)
        return {(row.writer_id, row.start) for row in found}

    async def replace(self, row: Row) -> None:
        """Put other counts in the place of a row's."""
        table = operation_slots
        same = and_(table.c.tier == row["tier"], table.c.start == row["start"], table.c.writer_id == row["writer_id"])
        await self._db.execute(update(table).where(same).values(counts=row["counts"]))

    async def sums_over(self, keys: set[Key]) -> list[Row]:
        """Return the existing rows of longer spans that these slots of ten seconds belong to."""
        table = operation_slots
        spans = {(tier, start - start % tier, writer) for writer, start in keys for tier in TIERS[1:]}
        return every(
            await self._db.execute(
                select(table).where(tuple_(table.c.tier, table.c.start, table.c.writer_id).in_(spans))
            )
        )

    async def unsummed(self, tier: int, longer: int, until: int) -> list[Key]:
        """Return finished spans of length ``longer`` that have slots of ``tier`` but no row of their own, in order.

        The difference is made here and not in SQL: while a table is new to it, Postgres takes a second for that.
        """
        table = operation_slots
        start = (table.c.start - table.c.start % longer).label("start")
        statement = select(table.c.writer_id, start).distinct()
        statement = statement.where(table.c.tier == tier, table.c.start < until - until % longer)
        spans = {(row.writer_id, row.start) for row in await self._db.execute(statement)}
        if spans:
            spans -= await self._keys(longer, min(begin for _, begin in spans), until)
        return sorted(spans, key=lambda key: key[::-1])

    async def slots_of(self, tier: int, longer: int, spans: list[Key]) -> list[Row]:
        """Return the rows of a tier that lie in these spans of length ``longer``, the oldest first."""
        table = operation_slots
        starts = [start for _, start in spans]
        near = and_(table.c.start >= min(starts), table.c.start < max(starts) + longer)
        inside = tuple_(table.c.writer_id, table.c.start - table.c.start % longer).in_(spans)
        statement = select(table).where(table.c.tier == tier, near, inside)
        return every(await self._db.execute(statement.order_by(table.c.start)))

    async def stored(self, keys: set[Key]) -> set[Key]:
        """Return which of these slots of ten seconds are there."""
        table = operation_slots
        mine = tuple_(table.c.writer_id, table.c.start).in_(keys)
        found = await self._db.execute(select(table.c.writer_id, table.c.start).where(table.c.tier == TIERS[0], mine))
        return {(row.writer_id, row.start) for row in found}

    async def covering(self, start: int, end: float) -> list[Row]:
        """Return rows that hold every slot from ``start`` to ``end`` once; the longest ones that fit.

        One statement, so that on Postgres, too, it sees one state of the table.
        """
        return every(await self._db.execute(_covering(start, end)))

    async def oldest(self, tier: int) -> int | None:
        """Return the start of the oldest row of a tier."""
        found = select(func.min(operation_slots.c.start)).where(operation_slots.c.tier == tier)
        start: int | None = (await self._db.execute(found)).scalar()
        return start

    async def remove(self, tier: int, since: int, before: int, *, summed_by: int | None) -> None:
        """Delete rows of a tier that start in a range, where asked only those that a longer row sums up."""
        table = operation_slots
        statement = delete(table).where(table.c.tier == tier, table.c.start >= since, table.c.start < before)
        if summed_by is not None:
            sums = await self._keys(summed_by, since - since % summed_by, before)
            span = tuple_(table.c.writer_id, table.c.start - table.c.start % summed_by)
            statement = statement.where(span.in_(sums))
        await self._db.execute(statement)

    async def _keys(self, tier: int, since: int, before: int) -> set[Key]:
        table = operation_slots
        statement = select(table.c.writer_id, table.c.start)
        statement = statement.where(table.c.tier == tier, table.c.start >= since, table.c.start < before)
        return {(row.writer_id, row.start) for row in await self._db.execute(statement)}


def _covering(start: int, end: float) -> CompoundSelect[Any]:
    return union_all(*(_rows_of(tier, start, end) for tier in TIERS))


def _rows_of(tier: int, start: int, end: float) -> Select[Any]:
    """Select what no longer row inside the window sums up; the slots at its newest end may reach beyond it."""
    table = operation_slots
    last = math.ceil(end) - 1 if tier == TIERS[0] else math.floor(end) - tier
    statement = select(table).where(table.c.tier == tier, table.c.start >= start, table.c.start <= last)
    for longer in TIERS[TIERS.index(tier) + 1 :]:
        sums = operation_slots.alias()
        begin = table.c.start - table.c.start % longer
        # Whether it fits is asked of our own start: as a range of theirs, Postgres would scan that range for each row.
        fits = and_(begin >= start, begin <= math.floor(end) - longer)
        same = and_(sums.c.tier == longer, sums.c.start == begin, sums.c.writer_id == table.c.writer_id)
        statement = statement.where(~and_(fits, exists().where(same)))
    return statement
