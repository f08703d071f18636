"""All SQL about conversations and messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, tuple_, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.clock import now
from ai_lab.conversations.search import first_matches, sessions_with
from ai_lab.conversations.tables import conversations, messages
from ai_lab.database.instances import server_instances
from ai_lab.database.rows import every, first, insert_into

_OPEN = "streaming"
_BLANK = {column.name: None for column in messages.c if column.name != "number"}


class ConversationRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    # -- conversations -------------------------------------------------------------------------------------------

    async def create(self, values: dict[str, Any]) -> bool:
        """Insert a conversation; returns False when its session_id is taken."""
        fresh = insert_into(self._db, conversations).values(values)
        statement = fresh.on_conflict_do_nothing(index_elements=["session_id"])
        return bool((await self._db.execute(statement.returning(conversations.c.session_id))).first())

    async def get(self, session_id: str) -> dict[str, Any] | None:
        """Return the conversation, if there is one."""
        return first(await self._db.execute(select(conversations).where(conversations.c.session_id == session_id)))

    async def by_idempotency_key(self, key: str) -> dict[str, Any] | None:
        """Return the conversation that was created with this key."""
        return first(await self._db.execute(select(conversations).where(conversations.c.idempotency_key == key)))

    async def page(
        self, *, limit: int, before: tuple[datetime, str] | None, archived: bool | None, query: str | None
    ) -> list[dict[str, Any]]:
        """Return up to ``limit`` conversations, the latest changed first, after the position ``before``."""
        columns = conversations.c
        statement = select(conversations).order_by(columns.updated_at.desc(), columns.session_id.desc()).limit(limit)
        if archived is not None:
            statement = statement.where(columns.archived == archived)
        if before is not None:
            statement = statement.where(tuple_(columns.updated_at, columns.session_id) < tuple_(*before))
        if query:
            found = sessions_with(self._db.dialect.name, query)
            in_title = columns.title.icontains(query, autoescape=True)
            statement = statement.where(or_(columns.session_id.in_(found), in_title))
        return every(await self._db.execute(statement))

    async def in_order_of_id(self, after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return conversations after a session_id: an order in which none moves while it is read."""
        statement = select(conversations).order_by(conversations.c.session_id).limit(limit)
        if after is not None:
            statement = statement.where(conversations.c.session_id > after)
        return every(await self._db.execute(statement))

    async def matches(self, session_ids: Sequence[str], query: str) -> list[dict[str, Any]]:
        """Return the first few matching messages of each of these conversations, with a snippet."""
        if not session_ids:
            return []
        statement = first_matches(self._db.dialect.name, query, session_ids)
        return every(await self._db.execute(statement))

    async def change(self, session_id: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """Set columns of a conversation and return it, or None if there is none."""
        statement = update(conversations).where(conversations.c.session_id == session_id).values(values)
        return first(await self._db.execute(statement.returning(*conversations.c)))

    async def remove(self, session_id: str) -> bool:
        """Delete a conversation with its messages; returns whether there was one."""
        statement = delete(conversations).where(conversations.c.session_id == session_id)
        return bool((await self._db.execute(statement.returning(conversations.c.session_id))).first())

    async def existing(self, identifiers: Sequence[str]) -> set[str]:
        """Return which of these are the id of a message or of a conversation."""
        found = union_all(
            select(messages.c.message_id).where(messages.c.message_id.in_(identifiers)),
            select(conversations.c.session_id).where(conversations.c.session_id.in_(identifiers)),
        )
        return set((await self._db.execute(found)).scalars())

    # -- messages ------------------------------------------------------------------------------------------------

    async def take_sequences(self, session_id: str, count: int, *, title: str | None, at: datetime) -> int:
        """Reserve ``count`` numbers of a conversation, creating it if need be, and return the first one.

        One statement on the counter's row: two writers can never be given the same number.
        """
        new = {"session_id": session_id, "title": title, "last_sequence": count, "created_at": at, "updated_at": at}
        fresh = insert_into(self._db, conversations).values(new)
        statement = fresh.on_conflict_do_update(
            index_elements=["session_id"],
            set_={
                "last_sequence": conversations.c.last_sequence + count,
                "updated_at": fresh.excluded.updated_at,
                "title": func.coalesce(conversations.c.title, fresh.excluded.title),
            },
        ).returning(conversations.c.last_sequence)
        last: int = (await self._db.execute(statement)).scalar_one()
        return last - count + 1

    async def take_next_sequence(self, session_id: str, *, title: str | None, at: datetime) -> int | None:
        """Reserve one number of a conversation that exists; returns None if there is none."""
        taken = {"last_sequence": conversations.c.last_sequence + 1, "updated_at": at}
        taken["title"] = func.coalesce(conversations.c.title, title)
        statement = update(conversations).where(conversations.c.session_id == session_id).values(taken)
        number: int | None = (await self._db.execute(statement.returning(conversations.c.last_sequence))).scalar()
        return number

    async def add(self, rows: list[dict[str, Any]]) -> None:
        """Insert messages, numbered by ``take_sequences``."""
        # Many rows at once are inserted with the columns of the first one: give all of them all columns.
        await self._db.execute(insert(messages), [_BLANK | row for row in rows])

    async def message(self, message_id: str) -> dict[str, Any] | None:
        """Return one message."""
        return first(await self._db.execute(select(messages).where(messages.c.message_id == message_id)))

    async def has_any(self, message_ids: Sequence[str]) -> bool:
        """Return whether one of these ids is taken."""
        statement = select(messages.c.number).where(messages.c.message_id.in_(message_ids)).limit(1)
        return (await self._db.execute(statement)).first() is not None

    async def message_by_idempotency_key(self, session_id: str, key: str) -> dict[str, Any] | None:
        """Return the message that was appended with this key."""
        chosen = and_(messages.c.session_id == session_id, messages.c.idempotency_key == key)
        return first(await self._db.execute(select(messages).where(chosen)))

    async def reply_to(self, message_id: str) -> dict[str, Any] | None:
        """Return the newest answer to a message."""
        statement = select(messages).where(messages.c.reply_to == message_id).order_by(messages.c.sequence.desc())
        return first(await self._db.execute(statement.limit(1)))

    async def messages_after(self, session_id: str, sequence: int, limit: int) -> list[dict[str, Any]]:
        """Return messages in order, from the one after ``sequence``."""
        statement = select(messages).where(messages.c.session_id == session_id, messages.c.sequence > sequence)
        return every(await self._db.execute(statement.order_by(messages.c.sequence).limit(limit)))

    async def prompt_rows(self, session_id: str, before: int | None, limit: int) -> list[dict[str, Any]]:
        """Return what a prompt is made of: the newest ended messages, oldest of them first, and any system message."""
        c = messages.c
        mine = and_(c.session_id == session_id, c.status != _OPEN, *([c.sequence < before] if before else []))
        newest = select(c.sequence).where(mine).order_by(c.sequence.desc()).limit(limit).scalar_subquery()
        statement = select(c.sequence, c.message_id, c.role, c.content, c.reply_to).where(
            mine, or_(c.sequence.in_(newest), c.role == "system")
        )
        return every(await self._db.execute(statement.order_by(c.sequence)))

    # -- answers that grow ---------------------------------------------------------------------------------------

    async def write_answer(self, message_id: str, values: dict[str, Any]) -> bool:
        """Set columns of an answer that has not ended; returns False if it has, or is gone.

        One that another process took for orphaned is not ended: its writer lives, and knows better.
        """
        open_answer = and_(messages.c.message_id == message_id, messages.c.status.in_((_OPEN, "interrupted")))
        result = await self._db.execute(update(messages).where(open_answer).values(updated_at=now(), **values))
        return bool(result.rowcount)

    async def interrupt_orphans(self) -> int:
        """Mark what writers that are not alive left unfinished; returns how many answers."""
        alive = select(server_instances.c.id)
        orphaned = or_(messages.c.writer_id.not_in(alive), messages.c.writer_id.is_(None))
        statement = update(messages).where(messages.c.status == _OPEN, orphaned)
        result = await self._db.execute(statement.values(status="interrupted", updated_at=now()))
        return int(result.rowcount)
