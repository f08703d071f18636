"""Agent states: saving one never overwrites another."""

from __future__ import annotations

from typing import Any

from ai_lab import cursor
from ai_lab.agents.repository import AgentRepository
from ai_lab.agents.schemas import AgentState, AgentStatePage, NewAgentState
from ai_lab.clock import new_id, now
from ai_lab.database import Database
from ai_lab.errors import AgentStateNotFound, IdempotencyKeyReused


class Agents:
    """The states of agents, by session_id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, session_id: str, new: NewAgentState, idempotency_key: str | None = None) -> AgentState:
        """Make ``new`` the current state; the one before stays in the history."""
        moment = now()
        row: dict[str, Any] = new.model_dump() | {
            "state_id": new_id(),
            "session_id": session_id,
            "idempotency_key": idempotency_key,
            "created_at": moment,
        }
        async with self._database.transaction() as db:
            repository = AgentRepository(db)
            if idempotency_key and (known := await repository.by_idempotency_key(session_id, idempotency_key)):
                if (
                    NewAgentState.model_validate(_state(known).model_dump(include=set(NewAgentState.model_fields)))
                    != new
                ):
                    raise IdempotencyKeyReused("This Idempotency-Key came with another state before. Use a new key.")
                return _state(known)
            row["sequence"] = await repository.take_sequences(session_id, 1, moment)
            await repository.add([row])
        return AgentState.model_validate(row)

    async def current(self, session_id: str) -> AgentState:
        """Return the newest state. Raises ``AgentStateNotFound``."""
        async with self._database.reading() as db:
            rows = await AgentRepository(db).newest(session_id)
        if not rows:
            raise _not_found(session_id)
        return _state(rows[0])

    async def history(self, session_id: str, *, limit: int = 20, after: str | None = None) -> AgentStatePage:
        """Return states, the newest first. Raises ``AgentStateNotFound`` and ``InvalidCursor``."""
        position = cursor.decode_number(after) if after else None
        async with self._database.reading() as db:
            rows = await AgentRepository(db).newest(session_id, before=position, limit=limit + 1)
        if not rows and position is None:
            raise _not_found(session_id)
        page = [_state(row) for row in rows[:limit]]
        has_more = len(rows) > limit
        return AgentStatePage(
            data=page, has_more=has_more, after=cursor.encode(page[-1].sequence) if has_more else None
        )


def _state(row: dict[str, Any]) -> AgentState:
    return AgentState.model_validate(row)


def _not_found(session_id: str) -> AgentStateNotFound:
    return AgentStateNotFound(f"Agent {session_id!r} has saved no state yet.", param="session_id")
