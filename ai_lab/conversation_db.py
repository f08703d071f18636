"""The import path of programs for the earlier AI-Lab: conversations and agent states without a server.

Everything works without set-up: the database is the server's own and its tables are made on first use. The objects
may live as long as they like and be used from several event loops, one after the other or at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession

from ai_lab.agents import Agents, NewAgentState
from ai_lab.cache import AnswerCache
from ai_lab.conversations import Conversations, earlier
from ai_lab.database import Database, database_address
from ai_lab.database.setup import prepare_database
from ai_lab.errors import AgentStateNotFound, InvalidRequest
from ai_lab.settings import Settings
from ai_lab.shapes import SessionId
from ai_lab.traces.forgetting import forget_session
from ai_lab.vault.alone import opened_vault, stored_secret
from ai_lab.vault.schemas import NewKey
from ai_lab.vault.service import Vault

__all__ = ["ConversationManagerDB", "DatabaseManager", "db_manager"]

_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
_ACTOR = "script"


@dataclass
class _InLoop:
    """What one event loop has of the database."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    database: Database | None = None
    keeper: AsyncGenerator[None, None] | None = None


class DatabaseManager:
    """The earlier interface to the database. Every failure raises an ``ai_lab.errors.LabError`` with the remedy.

    Args:
        database_url: default: DATABASE_URL, else the file in the data directory.
    """

    def __init__(self, database_url: str | None = None) -> None:
        self._given = database_url
        self._url: URL | None = None
        self._is_prepared = False
        self._loops: dict[asyncio.AbstractEventLoop, _InLoop] = {}

    async def create_tables(self) -> None:
        """Create the database if there is none, and bring its tables to this version."""
        await prepare_database(self._address())
        self._is_prepared = True

    async def add_conversation_message(
        self, session_id: str, role: str, content: str, thought_process: str | None = None
    ) -> None:
        """Append a message; it is safe on disk when this returns."""
        with _explained():
            await earlier.add(await self._conversations(session_id), session_id, role, content, thought_process)

    async def get_conversation_history(self, session_id: str) -> list[dict[str, Any]]:
        """Return the messages as ``{role, content, thought_process, timestamp}``, the oldest first."""
        found = await earlier.history(await self._conversations(session_id), session_id)
        return [message.model_dump() for message in found.history]

    async def clear_conversation(self, session_id: str) -> None:
        """Delete a conversation; it is no error where there is none."""
        conversations, database = await self._conversations(session_id), await self._database()
        cache = AnswerCache.open(Settings.load(database_url=self._given), database)
        conversations.when_deleted(cache.forget)
        conversations.when_deleted(partial(forget_session, database))
        try:
            await earlier.clear(conversations, session_id)
        finally:
            await cache.close()

    async def save_agent_state(
        self, session_id: str, message: str, status: str, feedback: str = "", thought_process: str = ""
    ) -> None:
        """Make this the agent's current state."""
        with _explained():
            new = NewAgentState(
                message=message, status=status, feedback=feedback or "", thought_process=thought_process or ""
            )
        await (await self._agents(session_id)).save(session_id, new)

    async def get_agent_state(self, session_id: str) -> dict[str, Any] | None:
        """Return the current state as ``{message, status, feedback, thought_process, timestamp}``, or None."""
        try:
            state = await (await self._agents(session_id)).current(session_id)
        except AgentStateNotFound:
            return None
        fields = state.model_dump(include={"message", "status", "feedback", "thought_process"})
        return fields | {"timestamp": state.created_at.isoformat()}

    async def store_api_key(self, service_name: str, api_key: str) -> None:
        """Store the key of a service in the vault of this database; ``ai_lab.api_keys`` can do more."""
        with _explained():
            new = NewKey(service_name=service_name, api_key=SecretStr(api_key))
        async with self._vault() as vault:
            await vault.add(new, actor=_ACTOR)

    async def get_api_key(self, service_name: str) -> str | None:
        """Return the key that a service is called with, or None."""
        async with self._vault() as vault:
            return await stored_secret(vault, service_name)

    async def list_api_keys(self) -> list[str]:
        """Return the services that have a usable key."""
        async with self._vault() as vault:
            return sorted({key.service_name for key in await vault.keys() if key.state == "active"})

    @asynccontextmanager
    async def SessionLocal(self) -> AsyncIterator[AsyncSession]:  # noqa: N802 - its name for earlier programs
        """Open one transaction; it commits at the end of the block and rolls back on an error."""
        async with (await self._database()).transaction() as db, AsyncSession(db) as session:
            yield session

    async def _conversations(self, session_id: str) -> Conversations:
        with _explained():
            _SESSION_ID.validate_python(session_id)
        return Conversations(await self._database())

    async def _agents(self, session_id: str) -> Agents:
        with _explained():
            _SESSION_ID.validate_python(session_id)
        return Agents(await self._database())

    @asynccontextmanager
    async def _vault(self) -> AsyncIterator[Vault]:
        settings = Settings.load(database_url=self._given)
        async with opened_vault(settings, database=await self._database()) as vault:
            yield vault

    async def _database(self) -> Database:
        """Return the running loop's own database: connections belong to the loop in which they were opened."""
        for loop in [loop for loop in self._loops if loop.is_closed()]:  # ended without a word
            del self._loops[loop]
        mine = self._loops.setdefault(asyncio.get_running_loop(), _InLoop())
        async with mine.lock:
            if not self._is_prepared:
                await self.create_tables()
            if mine.database is None:
                mine.database = Database(self._address())
                mine.keeper = self._close_with_loop(mine.database)
                await anext(mine.keeper)
        return mine.database

    async def _close_with_loop(self, database: Database) -> AsyncGenerator[None, None]:
        """Wait as a generator that is not finished: ``asyncio.run`` and others finish those before a loop ends."""
        try:
            yield
        finally:
            self._loops.pop(asyncio.get_running_loop(), None)
            await database.close()

    def _address(self) -> URL:
        if self._url is None:
            self._url = database_address(Settings.load(database_url=self._given))
        return self._url


class ConversationManagerDB:
    """The earlier interface to conversations and agent states. Failures raise, as in ``DatabaseManager``.

    Args:
        database: default: ``db_manager``.
    """

    def __init__(self, database: DatabaseManager | None = None) -> None:
        self._manager = database or db_manager

    async def add_message(self, session_id: str, role: str, content: str, thought_process: str | None = None) -> None:
        """Append a message under any role, kept as it is spelled; it is safe on disk when this returns."""
        await self._manager.add_conversation_message(session_id, role, content, thought_process)

    async def get_history(self, session_id: str) -> list[dict[str, Any]]:
        """Return the messages as ``{role, content, thought_process, timestamp}``, the oldest first."""
        return await self._manager.get_conversation_history(session_id)

    async def get_context(self, session_id: str, max_messages: int = 5) -> str:
        """Return the newest messages as text for a prompt; empty where there are none."""
        history = await self.get_history(session_id)
        newest = history[-max_messages:] if max_messages > 0 else []
        return "\n\n".join(["Recent conversation history:", *map(_as_context, newest)]) if newest else ""

    async def clear_history(self, session_id: str) -> None:
        """Delete a conversation; it is no error where there is none."""
        await self._manager.clear_conversation(session_id)

    async def save_agent_state(
        self, session_id: str, message: str, status: str, feedback: str = "", thought_process: str = ""
    ) -> None:
        """Make this the agent's current state."""
        await self._manager.save_agent_state(session_id, message, status, feedback, thought_process)

    async def get_agent_state(self, session_id: str) -> dict[str, Any] | None:
        """Return the current state as ``{message, status, feedback, thought_process, timestamp}``, or None."""
        return await self._manager.get_agent_state(session_id)


@contextmanager
def _explained() -> Iterator[None]:
    """Say what is wrong with a value, but never the value: it may be long or a secret."""
    try:
        yield
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'session_id'}: {fault['msg']}" for fault in error.errors()]
        raise InvalidRequest("; ".join(faults)) from None


def _as_context(message: dict[str, Any]) -> str:
    lines = [f"[{message['timestamp']}] {message['role']}:", f"Message: {message['content']}"]
    if message["thought_process"]:
        lines.append(f"Thought Process: {message['thought_process']}")
    return "\n".join(lines)


#: The one object that earlier programs import; it does nothing before its first use.
db_manager = DatabaseManager()
