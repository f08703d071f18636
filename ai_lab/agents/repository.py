"""All SQL about agent states."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.agents.tables import agent_states, agents
from ai_lab.database.rows import every, first, insert_into


class AgentRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def take_sequences(self, session_id: str, count: int, at: datetime) -> int:
        """Reserve ``count`` numbers of an agent, adding it if need be, and return the first one."""
        fresh = insert_into(self._db, agents).values(session_id=session_id, last_sequence=count, updated_at=at)
        statement = fresh.on_conflict_do_update(
            index_elements=["session_id"],
            set_={"last_sequence": agents.c.last_sequence + count, "updated_at": at},
        ).returning(agents.c.last_sequence)
        last: int = (await self._db.execute(statement)).scalar_one()
        return last - count + 1

    async def add(self, rows: list[dict[str, Any]]) -> None:
        """Insert states, numbered by ``take_sequences``."""
        await self._db.execute(insert(agent_states), rows)

    async def newest(self, session_id: str, *, before: int | None = None, limit: int = 1) -> list[dict[str, Any]]:
        """Return states, the newest first, older than number ``before``."""
        statement = select(agent_states).where(agent_states.c.session_id == session_id)
        if before is not None:
            statement = statement.where(agent_states.c.sequence < before)
        return every(await self._db.execute(statement.order_by(agent_states.c.sequence.desc()).limit(limit)))

    async def by_idempotency_key(self, session_id: str, key: str) -> dict[str, Any] | None:
        """Return the state that was saved with this key."""
        statement = select(agent_states).where(
            agent_states.c.session_id == session_id, agent_states.c.idempotency_key == key
        )
        return first(await self._db.execute(statement))
