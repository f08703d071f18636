"""The rules of conversations: what may be appended, renamed, found and deleted, and how answers grow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from ai_lab import cursor
from ai_lab.clock import new_id, now
from ai_lab.conversations.repository import ConversationRepository
from ai_lab.conversations.schemas import (
    Conversation,
    ConversationChange,
    ConversationPage,
    Message,
    MessageMatch,
    MessagePage,
    NewConversation,
    NewMessage,
)
from ai_lab.database import Database
from ai_lab.errors import ConversationExists, ConversationNotFound, IdempotencyKeyReused, TurnInProgress

#: Deletes what else is kept of a conversation.
Forget = Callable[[str], Awaitable[None]]

_TITLE_LENGTH = 80
_EXPORT_BATCH = 200


@dataclass(frozen=True)
class StartedTurn:
    """A user message and the open answer to it; ``is_repeat`` where the Idempotency-Key had been seen before."""

    question: Message
    answer: Message | None
    is_repeat: bool = False


@dataclass(frozen=True)
class PromptHistory:
    """The past of a turn: rows with sequence, role, content and reply_to, and whether it may leave the machine."""

    local_only: bool
    rows: list[dict[str, Any]]


class Conversations:
    """Chat sessions and their messages."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._forgetting: list[Forget] = []

    def when_deleted(self, forget: Forget) -> None:
        """Have ``forget`` called for each conversation that is deleted from now on."""
        self._forgetting.append(forget)

    async def existing(self, identifiers: Collection[str]) -> set[str]:
        """Return which of these ids, of messages or of conversations, are still there."""
        async with self._database.reading() as db:
            return await ConversationRepository(db).existing(list(identifiers))

    async def create(self, new: NewConversation, idempotency_key: str | None = None) -> Conversation:
        """Create a conversation. Raises ``ConversationExists``; a repeat of the same key returns the first one."""
        moment = now()
        values = new.model_dump() | {"session_id": new.session_id or new_id(), "idempotency_key": idempotency_key}
        async with self._database.transaction() as db:
            repository = ConversationRepository(db)
            if idempotency_key and (known := await repository.by_idempotency_key(idempotency_key)):
                if new.session_id not in (None, known["session_id"]) or new.title != known["title"]:
                    raise _reused()
                return _conversation(known)
            if not await repository.create(values | {"created_at": moment, "updated_at": moment}):
                raise ConversationExists(
                    f"There is a conversation {new.session_id!r} already. Choose another session_id, or append to it.",
                    param="session_id",
                )
            return _conversation(await repository.get(values["session_id"]))

    async def get(self, session_id: str) -> Conversation:
        """Return a conversation. Raises ``ConversationNotFound``."""
        async with self._database.reading() as db:
            return _conversation(await ConversationRepository(db).get(session_id), session_id)

    async def page(
        self, *, limit: int = 20, after: str | None = None, query: str | None = None, archived: bool | None = False
    ) -> ConversationPage:
        """Return conversations, the latest changed first.

        Args:
            limit: at most this many.
            after: the ``after`` of the page before.
            query: words that a message must hold (or that stand in the title); see ``conversations.search``.
            archived: only archived ones, only others, or None for both.

        Raises:
            InvalidCursor: ``after`` is not from such a list.
        """
        position = cursor.decode_moment(after) if after else None
        query = query.strip() if query else None
        async with self._database.reading() as db:
            repository = ConversationRepository(db)
            rows = await repository.page(limit=limit + 1, before=position, archived=archived, query=query)
            page = [_conversation(row) for row in rows[:limit]]
            if query:
                found = await repository.matches([item.session_id for item in page], query)
                for item in page:
                    item.matches = [_match(row) for row in found if row["session_id"] == item.session_id]
        has_more = len(rows) > limit
        last = page[-1] if has_more else None
        return ConversationPage(
            data=page, has_more=has_more, after=last and cursor.encode(last.updated_at, last.session_id)
        )

    async def every(self) -> AsyncIterator[Conversation]:
        """Yield all conversations, archived or not, in batches; none is missed while others change."""
        position = None
        while True:
            async with self._database.reading() as db:
                rows = await ConversationRepository(db).in_order_of_id(position, _EXPORT_BATCH)
            for row in rows:
                yield _conversation(row)
            if len(rows) < _EXPORT_BATCH:
                return
            position = rows[-1]["session_id"]

    async def change(self, session_id: str, change: ConversationChange) -> Conversation:
        """Rename, archive or mark a conversation. Raises ``ConversationNotFound``."""
        values = change.model_dump(exclude_unset=True)
        values = {k: v for k, v in values.items() if v is not None or k in {"title", "metadata"}}
        async with self._database.transaction() as db:
            row = await ConversationRepository(db).change(session_id, values | {"updated_at": now()})
            return _conversation(row, session_id)

    async def delete(self, session_id: str) -> None:
        """Delete a conversation for good: its messages, and what else is kept of them (``when_deleted``).

        Raises:
            ConversationNotFound: there is none.
            DatabaseUnavailable: some of it may be there still; deleting it once more deletes the rest.
        """
        async with self._database.transaction() as db:
            was_there = await ConversationRepository(db).remove(session_id)
        # Only now, so that what is written meanwhile is either found here or finds the conversation gone; and always,
        # for an earlier try may have ended in the middle.
        for forget in self._forgetting:
            await forget(session_id)
        if not was_there:
            raise _not_found(session_id)

    async def append(
        self,
        session_id: str,
        new: NewMessage,
        *,
        idempotency_key: str | None = None,
        extra: dict[str, Any] | None = None,
        must_exist: bool = False,
    ) -> Message:
        """Append a message; it is safe on disk when this returns.

        A conversation that does not exist is created, or with ``must_exist`` raises ``ConversationNotFound``.
        """
        moment = now()
        row = _new_row(session_id, new.role, new.content, moment, idempotency_key=idempotency_key)
        row |= {"thought_process": new.thought_process, "created_at": new.created_at or moment, "extra": extra}
        async with self._database.transaction() as db:
            repository = ConversationRepository(db)
            if idempotency_key and (known := await repository.message_by_idempotency_key(session_id, idempotency_key)):
                if (known["role"], known["content"]) != (new.role, new.content):
                    raise _reused()
                return message_of(known)
            title = title_of(new.content) if new.role == "user" else None
            if not must_exist:
                row["sequence"] = await repository.take_sequences(session_id, 1, title=title, at=moment)
            elif number := await repository.take_next_sequence(session_id, title=title, at=moment):
                row["sequence"] = number
            else:
                raise _not_found(session_id)
            await repository.add([row])
        return Message.model_validate(row)

    async def messages(self, session_id: str, *, limit: int = 20, after: str | None = None) -> MessagePage:
        """Return messages in order. Raises ``ConversationNotFound`` and ``InvalidCursor``."""
        position = cursor.decode_number(after) if after else 0
        async with self._database.reading() as db:
            repository = ConversationRepository(db)
            _conversation(await repository.get(session_id), session_id)
            rows = await repository.messages_after(session_id, position, limit + 1)
        page = [message_of(row) for row in rows[:limit]]
        has_more = len(rows) > limit
        return MessagePage(data=page, has_more=has_more, after=cursor.encode(page[-1].sequence) if has_more else None)

    async def all_messages(self, session_id: str) -> AsyncIterator[Message]:
        """Yield every message in order, in batches, so that a long conversation needs little memory."""
        position = 0
        while True:
            async with self._database.reading() as db:
                rows = await ConversationRepository(db).messages_after(session_id, position, _EXPORT_BATCH)
            for row in rows:
                yield message_of(row)
            if len(rows) < _EXPORT_BATCH:
                return
            position = rows[-1]["sequence"]

    async def prompt_history(self, session_id: str, *, before: int | None, limit: int) -> PromptHistory:
        """Return what an answer may build upon: the newest ``limit`` ended messages before number ``before``."""
        async with self._database.reading() as db:
            repository = ConversationRepository(db)
            known = await repository.get(session_id)
            rows = await repository.prompt_rows(session_id, before, limit) if known else []
        return PromptHistory(local_only=bool(known and known["local_only"]), rows=rows)

    # -- a turn: one question, one answer that grows -----------------------------------------------------------------

    async def start_turn(
        self,
        session_id: str,
        question: str,
        *,
        system: str | None,
        answer: dict[str, Any],
        idempotency_key: str | None = None,
        local_only: bool = False,
    ) -> StartedTurn:
        """Save the user's message and open the answer to it, in one transaction.

        ``answer`` holds the columns known so far: model, provider, writer_id. A key seen before returns that turn.
        """
        moment = now()
        asked = _new_row(session_id, "user", question, moment, idempotency_key=idempotency_key)
        opened = _new_row(session_id, "assistant", "", moment) | answer
        opened |= {"status": "streaming", "reply_to": asked["message_id"]}
        rows = [_new_row(session_id, "system", system, moment)] if system else []
        rows += [asked, opened]
        async with self._database.transaction() as db:
            repository = ConversationRepository(db)
            if idempotency_key and (known := await repository.message_by_idempotency_key(session_id, idempotency_key)):
                if known["content"] != question:
                    raise _reused()
                reply = await repository.reply_to(known["message_id"])
                return StartedTurn(message_of(known), message_of(reply) if reply else None, is_repeat=True)
            first = await repository.take_sequences(session_id, len(rows), title=title_of(question), at=moment)
            for sequence, row in enumerate(rows, first):
                row["sequence"] = sequence
            await repository.add(rows)
            if local_only:
                await repository.change(session_id, {"local_only": True})
        return StartedTurn(Message.model_validate(asked), Message.model_validate(opened))

    async def open_answer(self, question: Message, answer: dict[str, Any], *, instead_of: Message | None) -> Message:
        """Open another answer to a question whose first one (``instead_of``) came to nothing.

        Raises:
            TurnInProgress: somebody else has opened one at the same moment.
        """
        moment = now()
        opened = _new_row(question.session_id, "assistant", "", moment) | answer
        opened |= {"status": "streaming", "reply_to": question.message_id}
        async with self._database.transaction() as db:
            repository = ConversationRepository(db)
            opened["sequence"] = await repository.take_sequences(question.session_id, 1, title=None, at=moment)
            newest = await repository.reply_to(question.message_id)  # nobody else writes here until this has ended
            if newest and (instead_of is None or newest["message_id"] != instead_of.message_id):
                raise TurnInProgress("This turn is being answered. Ask again in a moment.", retry_after_seconds=2)
            await repository.add([opened])
        return Message.model_validate(opened)

    async def close_orphans(self) -> int:
        """Mark answers interrupted whose server processes are gone; returns how many."""
        async with self._database.transaction() as db:
            return await ConversationRepository(db).interrupt_orphans()

    async def write_answer(self, message_id: str, **values: Any) -> bool:
        """Save the answer as far as it has grown, or end it with ``status``; False if it was deleted or ended."""
        async with self._database.transaction() as db:
            return await ConversationRepository(db).write_answer(message_id, values)


def message_of(row: dict[str, Any]) -> Message:
    """Return a row as a message."""
    return Message.model_validate(row)


def _conversation(row: dict[str, Any] | None, session_id: str = "") -> Conversation:
    if row is None:
        raise _not_found(session_id)
    return Conversation.model_validate({**row, "message_count": row["last_sequence"]})


def _match(row: dict[str, Any]) -> MessageMatch:
    return MessageMatch(
        message_id=row["message_id"], sequence=row["sequence"], role=row["role"], snippet=row["snippet"]
    )


def _new_row(
    session_id: str, role: str, content: str, moment: Any, *, idempotency_key: str | None = None
) -> dict[str, Any]:
    """Return the columns that every new message has."""
    return {
        "message_id": new_id(),
        "session_id": session_id,
        "role": role,
        "content": content,
        "status": "complete",
        "idempotency_key": idempotency_key,
        "created_at": moment,
        "updated_at": moment,
    }


def title_of(content: str) -> str | None:
    """Return the beginning of what was said, on one line."""
    line = " ".join(content[: _TITLE_LENGTH * 4].split())
    return (line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1] + "…") or None


def _not_found(session_id: str) -> ConversationNotFound:
    return ConversationNotFound(
        f"There is no conversation {session_id!r}. GET /conversations lists them, POST /conversations starts one.",
        param="session_id",
    )


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("This Idempotency-Key came with another request before. Use a new key.")
