"""All SQL about traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import every, first, insert_into
from ai_lab.traces.tables import traces

_BIG = {"tree", "prompt", "answer"}
_SHOWN = [column for column in traces.c if column.name not in _BIG]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which traces are wanted; None: all.

    Attributes:
        model: the model that answered, with or without its provider, or the name that was asked for.
        since: the first moment that counts.
        until: the first moment that does not count any more.
    """

    status: str | None = None
    model: str | None = None
    provider: str | None = None
    session_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class TraceRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Insert traces; one that is there already stays as it is."""
        await self._db.execute(insert_into(self._db, traces).on_conflict_do_nothing(), list(rows))

    async def page(self, filters: Filters, *, before: tuple[datetime, str] | None, limit: int) -> list[dict[str, Any]]:
        """Return traces without their trees, the newest first, older than the position ``before``."""
        statement = select(*_SHOWN).where(*_conditions(filters))
        if before is not None:
            at, identifier = before
            statement = statement.where(or_(traces.c.at < at, and_(traces.c.at == at, traces.c.id < identifier)))
        return every(await self._db.execute(statement.order_by(traces.c.at.desc(), traces.c.id.desc()).limit(limit)))

    async def get(self, identifier: str) -> dict[str, Any] | None:
        """Return a trace by its id, or the newest one of a W3C trace id."""
        found = first(await self._db.execute(select(traces).where(traces.c.id == identifier)))
        if found is not None:
            return found
        statement = select(traces).where(traces.c.trace_id == identifier).order_by(traces.c.at.desc()).limit(1)
        return first(await self._db.execute(statement))

    async def of_session(self, session_id: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Return ``id`` and ``tree`` of a conversation's traces, in the order of their ids, beginning after one."""
        statement = select(traces.c.id, traces.c.tree).where(traces.c.session_id == session_id, traces.c.id > after)
        return every(await self._db.execute(statement.order_by(traces.c.id).limit(limit)))

    async def forget_texts(self, trees: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Delete prompts and answers of traces, given by id with the tree that is left."""
        values: dict[str, Any] = {"tree": bindparam("left"), "prompt": None, "answer": None}
        statement = update(traces).where(traces.c.id == bindparam("of")).values(values)
        # In one order, so that two servers never wait for each other.
        await self._db.execute(statement, [{"of": identifier, "left": tree} for identifier, tree in sorted(trees)])

    async def purge(self, before: datetime, limit: int) -> int:
        """Delete the oldest traces before a moment, at most ``limit``, and return how many."""
        oldest = select(traces.c.id).where(traces.c.at < before).order_by(traces.c.at).limit(limit)
        result = await self._db.execute(delete(traces).where(traces.c.id.in_(oldest)))
        return result.rowcount

    async def moment_of(self, place: int) -> datetime | None:
        """Return when the trace at this place was made, the newest having place 0; None: there are fewer."""
        statement = select(traces.c.at).order_by(traces.c.at.desc()).offset(place).limit(1)
        moment: datetime | None = (await self._db.execute(statement)).scalar_one_or_none()
        return moment


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.status is not None:
        found.append(traces.c.status == filters.status)
    if filters.provider is not None:
        found.append(traces.c.provider == filters.provider)
    if filters.session_id is not None:
        found.append(traces.c.session_id == filters.session_id)
    if filters.since is not None:
        found.append(traces.c.at >= filters.since)
    if filters.until is not None:
        found.append(traces.c.at < filters.until)
    if filters.model is not None:
        provider, slash, model = filters.model.partition("/")
        names = [traces.c.model == filters.model, traces.c.asked == filters.model]
        if slash:
            names.append(and_(traces.c.provider == provider, traces.c.model == model))
        found.append(or_(*names))
    return found
