"""All SQL about circuit breakers. Moments come from the caller, who follows the database's clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.clock import now as wall_now
from ai_lab.database import Database
from ai_lab.database.rows import every, insert_into
from ai_lab.errors import DatabaseUnavailable
from ai_lab.gateway.breaker_record import Key, Record
from ai_lab.gateway.tables import gateway_breakers as breakers

#: More models than that do not fail at once; names that nobody uses any more must not pile up.
MOST_RECORDS = 1000
_FORGOTTEN_AFTER = timedelta(days=1)


@asynccontextmanager
async def breaker_rows(database: Database, *, writes: bool = True) -> AsyncIterator[BreakerRepository]:
    """Open one unit of work; without ``writes`` it waits for no writer.

    Raises:
        LabError: nothing was changed, for whatever reason.
    """
    try:
        async with database.transaction() if writes else database.reading() as db:
            yield BreakerRepository(db)
    except SQLAlchemyError as error:
        raise DatabaseUnavailable("The state of circuit breakers cannot be kept in the database.") from error


class BreakerRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def clock_seconds(self) -> float:
        """Return the database's clock; SQLite's is this machine's."""
        if self._db.dialect.name == "sqlite":
            return time.time()
        return float((await self._db.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one())

    async def all(self) -> list[Record]:
        """Return the newest records of the last day."""
        newest = select(breakers).where(breakers.c.changed_at >= wall_now() - _FORGOTTEN_AFTER)
        newest = newest.order_by(breakers.c.changed_at.desc()).limit(MOST_RECORDS)
        return [Record(**row) for row in every(await self._db.execute(newest))]

    async def put(self, record: Record) -> None:
        """Save a record as it is."""
        values = asdict(record)
        statement = insert_into(self._db, breakers).values(values)
        await self._db.execute(
            statement.on_conflict_do_update(index_elements=["provider", "model"], set_=_without_key(values))
        )

    async def delete(self, key: Key) -> None:
        """Forget a model."""
        await self._db.execute(delete(breakers).where(_is(key)))

    async def delete_old(self) -> None:
        """Forget models that nobody has asked for a day."""
        await self._db.execute(delete(breakers).where(breakers.c.changed_at < wall_now() - _FORGOTTEN_AFTER))

    async def count_failure(self, record: Record, limit: int, now: float, wait_seconds: float) -> None:
        """Count one failure of all servers together, and open where it is the last that is borne.

        Args:
            record: the model, and what the error said.
            limit: how many in a row are borne.
            now: of the database's clock.
            wait_seconds: how long it is left alone where it opens.
        """
        opens = breakers.c.failures + 1 >= limit
        first = asdict(record) | {"failures": 1, "state": "closed", "opened_at": None, "retry_at": None}
        first |= {"probe": None, "probe_until": None}
        if limit == 1:
            first |= {"state": "open", "opened_at": now, "retry_at": now + wait_seconds}
        statement = insert_into(self._db, breakers).values(first)
        await self._db.execute(
            statement.on_conflict_do_update(
                index_elements=["provider", "model"],
                set_={
                    "failures": breakers.c.failures + 1,
                    "state": case((opens, "open"), else_="closed"),
                    "opened_at": case((opens, now), else_=breakers.c.opened_at),
                    "retry_at": case((opens, now + wait_seconds), else_=breakers.c.retry_at),
                    **_said(record),
                },
                where=breakers.c.state == "closed",
            )
        )

    async def hold(self, record: Record) -> None:
        """Leave a model alone as its service asks; a longer wait that is known already stays."""
        values = asdict(record)
        longer = func.coalesce(breakers.c.retry_at, 0.0) < record.retry_at
        statement = insert_into(self._db, breakers).values(values)
        await self._db.execute(
            statement.on_conflict_do_update(
                index_elements=["provider", "model"],
                set_=_without_key(values),
                where=or_(breakers.c.state == "closed", longer),
            )
        )

    async def recover(self, key: Key) -> None:
        """Forget the failures of a model that answered."""
        await self._db.execute(delete(breakers).where(_is(key), breakers.c.state == "closed"))

    async def claim(self, key: Key, probe: str, now: float, until: float) -> bool:
        """Return whether ``probe`` is the one request that tries the model now: the first to ask, by the row's lock."""
        free = or_(
            and_(breakers.c.state == "open", breakers.c.retry_at <= now),
            and_(breakers.c.state == "half_open", breakers.c.probe_until <= now),
        )
        values = {"state": "half_open", "probe": probe, "probe_until": until, "changed_at": wall_now()}
        result = await self._db.execute(update(breakers).where(_is(key), free).values(values))
        return bool(result.rowcount)

    async def end_probe(self, key: Key, probe: str, **values: Any) -> None:
        """Change a model as its probe found it; does nothing where another one tries it by now."""
        await self._db.execute(
            update(breakers)
            .where(_is(key), breakers.c.probe == probe)
            .values({"probe": None, "probe_until": None, "changed_at": wall_now(), **values})
        )

    async def renew(self, key: Key, probe: str, until: float) -> None:
        """Say that the probe still waits for its answer."""
        await self._db.execute(
            update(breakers).where(_is(key), breakers.c.probe == probe).values({"probe_until": until})
        )


def _is(key: Key) -> ColumnElement[bool]:
    return and_(breakers.c.provider == key[0], breakers.c.model == key[1])


def _said(record: Record) -> dict[str, Any]:
    return {"error_code": record.error_code, "reason": record.reason, "changed_at": record.changed_at}


def _without_key(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in {"provider", "model"}}
