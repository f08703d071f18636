"""Answers in the lab's own database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from ai_lab.cache.memory import Kept
from ai_lab.cache.repository import AnswerRepository
from ai_lab.cache.schemas import CachedAnswer
from ai_lab.cache.store import Entry, Sizes, answer_of_plain
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import DatabaseUnavailable

#: Rows of one transaction, so that other writers have their turn soon.
_AT_ONCE = 200
_KEYS_AT_ONCE = 5000
_MOST_KNOWN = 100_000
#: When there is too much, it is brought down to this share of the limit, so that it is not done for every answer.
_KEPT_SHARE = 0.9
_SHOWN_CHARACTERS = 200


class DatabaseStore:
    """Answers as rows.

    SQLite has one server, so what is stored there is known here: a request that is new waits for no look into the
    database. Where another program has stored something in the file, that is a look-up without a hit and no more.

    Args:
        database: of the lab.
        limit_bytes: room for all answers; the ones that would be over first go first.
    """

    name: Literal["database"] = "database"

    def __init__(self, database: Database, limit_bytes: int) -> None:
        self._database = database
        self.limit_bytes: int | None = limit_bytes
        self._limit_bytes = limit_bytes
        #: Bytes that may be added before the room is looked at again; None: it was never looked at.
        self._room_bytes: int | None = None
        self._known: set[int] | None = None
        #: What was stored while the others are still being read.
        self._stored: set[int] = set()
        self._reading_keys: asyncio.Task[None] | None = None
        self._is_closing = False

    async def get(self, key: str) -> Kept | None:
        """Return what is stored under ``key`` and not over yet."""
        if self._known is None:
            self._learn_keys()
        elif _short(key) not in self._known:
            return None
        async with self._database.reading() as db:
            row = await AnswerRepository(db).get(key, now())
        answer = answer_of_plain(row["answer"]) if row else None
        if row is None or answer is None:
            return None
        return Kept(answer, row["size_bytes"], row["expires_at"].timestamp())

    async def put(self, entries: Sequence[Entry]) -> None:
        """Store answers."""
        latest = {entry.cache_key.key: entry for entry in entries}  # a statement must not meet a row twice
        rows = [_row(latest[key]) for key in sorted(latest)]
        for start in range(0, len(rows), _AT_ONCE):
            async with self._database.transaction() as db:
                await AnswerRepository(db).put(rows[start : start + _AT_ONCE])
        (self._stored if self._known is None else self._known).update(map(_short, latest))
        if self._room_bytes is not None:
            self._room_bytes -= sum(entry.size_bytes for entry in latest.values())
        if self._room_bytes is None or self._room_bytes < 0:
            await self._make_room()

    async def generation(self) -> int:
        """Return how often answers were deleted before their time."""
        async with self._database.reading() as db:
            return await AnswerRepository(db).generation()

    async def evict(self, key: str) -> bool:
        """Delete one answer and say whether there was one."""
        async with self._database.transaction() as db:
            repository = AnswerRepository(db)
            was_there = await repository.evict(key)
            if was_there:
                await repository.next_generation()
        return was_there

    async def forget(self, session_id: str) -> None:
        """Delete the answers that were made for a conversation."""
        async with self._database.transaction() as db:
            repository = AnswerRepository(db)
            if await repository.forget(session_id):
                await repository.next_generation()

    async def clear(self) -> int:
        """Delete all answers and return how many there were."""
        async with self._database.transaction() as db:
            repository = AnswerRepository(db)
            deleted = await repository.clear()
            await repository.next_generation()
        self._forget_keys()
        self._room_bytes = None
        return deleted

    async def purge(self) -> None:
        """Delete what is over, and the oldest where there is too much, in short transactions."""
        at = now()
        async with self._database.reading() as db:
            has_expired = await AnswerRepository(db).has_expired(at)
        while has_expired:
            async with self._database.transaction() as db:
                has_expired = await AnswerRepository(db).delete_expired(at, _AT_ONCE) == _AT_ONCE
        self._room_bytes = None  # another server may have stored something meanwhile
        if self._known is not None and len(self._known) > _MOST_KNOWN:
            self._forget_keys()  # most of them are gone; they are read anew

    async def sizes(self) -> Sizes:
        """Return how much is stored."""
        at = now()
        async with self._database.reading() as db:
            repository = AnswerRepository(db)
            entries, size_bytes = await repository.total(at)
            return Sizes(entries, size_bytes, await repository.oldest_at(at))

    async def page(self, *, limit: int, before: tuple[datetime, str] | None) -> list[CachedAnswer]:
        """Return answers, the newest first."""
        async with self._database.reading() as db:
            rows = await AnswerRepository(db).page(now(), limit, before)
        for row in rows:
            row["question"] = row["question"] and row["question"][:_SHOWN_CHARACTERS]
        return [CachedAnswer.model_validate(row) for row in rows]

    async def close(self) -> None:
        """End what is read in the background, after the statement under way: a connection is never left in one."""
        self._is_closing = True
        if self._reading_keys is not None:
            await asyncio.wait({self._reading_keys})

    async def _make_room(self) -> None:
        kept_bytes = int(self._limit_bytes * _KEPT_SHARE)
        size_bytes, deleted = await self._size_bytes(), _AT_ONCE
        if size_bytes > self._limit_bytes:
            while size_bytes > kept_bytes and deleted == _AT_ONCE:
                async with self._database.transaction() as db:
                    deleted = await AnswerRepository(db).delete_oldest(size_bytes - kept_bytes, _AT_ONCE)
                size_bytes = await self._size_bytes()
        self._room_bytes = self._limit_bytes - size_bytes

    async def _size_bytes(self) -> int:
        async with self._database.reading() as db:
            return await AnswerRepository(db).size_bytes()

    def _forget_keys(self) -> None:
        self._known = None
        self._stored = set()

    def _learn_keys(self) -> None:
        if self._database.is_sqlite and (self._reading_keys is None or self._reading_keys.done()):
            self._reading_keys = asyncio.create_task(self._read_keys())

    async def _read_keys(self) -> None:
        known: set[int] = set()
        after: str | None = ""
        try:
            while after is not None and not self._is_closing:
                async with self._database.reading() as db:
                    keys = await AnswerRepository(db).keys(after, _KEYS_AT_ONCE)
                known.update(map(_short, keys))
                after = keys[-1] if len(keys) == _KEYS_AT_ONCE else None
        except DatabaseUnavailable:
            return  # the next look-up tries again
        self._known = known | self._stored


def _short(key: str) -> int:
    """Return enough of a key to tell it from others but for a harmless rest."""
    return int(key[:15], 16)


def _row(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.cache_key.key,
        "scope": entry.cache_key.scope,
        "provider": entry.cache_key.provider,
        "model": entry.cache_key.model,
        "session_id": entry.session_id,
        "answer": entry.plain,
        "size_bytes": entry.size_bytes,
        "hits": 0,
        "semantic_hits": 0,
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
    }
