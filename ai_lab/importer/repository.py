"""All SQL of the importer: what is there already, and long runs of rows under numbers reserved at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Table, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.agents.repository import AgentRepository
from ai_lab.agents.tables import agent_states, agents
from ai_lab.conversations.repository import ConversationRepository
from ai_lab.conversations.tables import conversations, messages
from ai_lab.importer.records import Holds
from ai_lab.importer.tables import imported_sources

_OWNERS: dict[Holds, Table] = {"messages": conversations, "states": agents}
_ROWS: dict[Holds, Table] = {"messages": messages, "states": agent_states}
_ROWS_AT_ONCE = 10  # a row may be large


class ImportRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db
        self._insert = sqlite.insert if db.dialect.name == "sqlite" else postgresql.insert

    async def imported(self, fingerprint: str) -> str | None:
        """Return the session_id under which a source was imported before."""
        statement = select(imported_sources.c.session_id).where(imported_sources.c.fingerprint == fingerprint)
        session_id: str | None = (await self._db.execute(statement)).scalar()
        return session_id

    async def rows_added(self, kind: str, session_id: str) -> int:
        """Return how many rows earlier imports of this kind have brought in under one name."""
        columns = imported_sources.c
        statement = select(func.sum(columns.rows_added)).where(columns.kind == kind, columns.session_id == session_id)
        return int((await self._db.execute(statement)).scalar() or 0)

    async def remember(self, values: dict[str, Any]) -> bool:
        """Note a source as imported; returns False if another process was quicker (on Postgres this waits for it)."""
        statement = self._insert(imported_sources).values(values).on_conflict_do_nothing()
        return bool((await self._db.execute(statement.returning(imported_sources.c.fingerprint))).first())

    async def is_taken(self, holds: Holds, session_id: str) -> bool:
        """Return whether there is a conversation, or an agent, of this name."""
        owner = _OWNERS[holds]
        statement = select(owner.c.session_id).where(owner.c.session_id == session_id)
        return (await self._db.execute(statement)).first() is not None

    async def rows(self, holds: Holds, session_id: str) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the messages of a conversation, or the states of an agent, in order."""
        table = _ROWS[holds]
        statement = select(table).where(table.c.session_id == session_id).order_by(table.c.sequence)
        async with self._db.stream(statement.execution_options(yield_per=_ROWS_AT_ONCE)) as result:
            async for row in result:
                yield {**row._mapping}  # noqa: SLF001 - the documented name of SQLAlchemy

    async def create(self, holds: Holds, values: dict[str, Any]) -> bool:
        """Add a conversation or an agent with its numbers reserved; returns False if the name is taken."""
        if holds == "messages":
            return await ConversationRepository(self._db).create(values)
        statement = self._insert(agents).values(values).on_conflict_do_nothing()
        return bool((await self._db.execute(statement.returning(agents.c.session_id))).first())

    async def extend(self, holds: Holds, session_id: str, count: int, at: datetime) -> int:
        """Reserve ``count`` more numbers and return the first one."""
        if holds == "messages":
            return await ConversationRepository(self._db).take_sequences(session_id, count, title=None, at=at)
        return await AgentRepository(self._db).take_sequences(session_id, count, at)

    async def add(self, holds: Holds, rows: list[dict[str, Any]]) -> None:
        """Insert numbered rows."""
        await self._db.execute(insert(_ROWS[holds]), rows)
