"""Answers on a Redis server, where ``REDIS_URL`` names one. The package is loaded when it is first asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ai_lab.cache.memory import Kept
from ai_lab.cache.schemas import CachedAnswer
from ai_lab.cache.store import Entry, Sizes, answer_of_plain
from ai_lab.clock import now
from ai_lab.errors import DatabaseUnavailable, InvalidSettings, UnsupportedFeature

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PREFIX = "ai-lab:cache:"
_ANSWER = f"{_PREFIX}answer:"
#: The keys of a conversation's answers; kept as long as the newest of them.
_SESSION = f"{_PREFIX}session:"
_GENERATION = f"{_PREFIX}generation"
_AT_ONCE = 500
#: Keys of all kinds in Redis; where there are more, nobody counts ours.
_MOST_COUNTED = 100_000
_WAIT_SECONDS = 5.0


class RedisStore:
    """Answers under keys that Redis lets go by itself when their time is over.

    How much it may hold is a setting of Redis (``maxmemory`` with ``maxmemory-policy volatile-lru``).

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``redis+unix://``.

    Raises:
        InvalidSettings: the address or the installation is not fit for it; the text never holds the address, which
            may have a password in it.
    """

    name: Literal["redis"] = "redis"
    limit_bytes: int | None = None

    def __init__(self, url: str) -> None:
        address = url.removeprefix("async+").replace("redis+unix://", "unix://", 1)
        try:
            parts = urlsplit(address)
            is_address = parts.scheme == "unix" or (parts.scheme in ("redis", "rediss") and parts.port != 0)
        except ValueError:
            is_address = False
        if not is_address:
            raise InvalidSettings("REDIS_URL cannot be read. It looks like redis://:password@host:6379/0.")
        if find_spec("redis") is None:
            raise InvalidSettings("REDIS_URL needs a package: pip install 'ai-lab[redis]'.")
        self._address = address
        self._client: Redis | None = None

    async def get(self, key: str) -> Kept | None:
        """Return what is stored under ``key``; Redis has let go what is over."""
        async with self._using() as client:
            text = await client.get(_ANSWER + key)
        try:
            stored = json.loads(text) if text else None
            expires_at = float(stored["expires_at"]) if stored else 0.0
        except (ValueError, TypeError, KeyError, RecursionError):  # not from here
            return None
        answer = answer_of_plain(stored["answer"]) if stored else None
        return None if answer is None or text is None else Kept(answer, len(text), expires_at)

    async def put(self, entries: Sequence[Entry]) -> None:
        """Store answers, all in one exchange; not those of requests that must stay on this machine."""
        async with self._using() as client, client.pipeline(transaction=False) as pipe:
            for entry in entries:
                left_ms = int((entry.expires_at - now()).total_seconds() * 1000)
                if left_ms > 0 and not entry.cache_key.is_local_only:
                    value = {"answer": entry.plain, "expires_at": entry.expires_at.timestamp()}
                    if entry.session_id is not None:
                        pipe.sadd(_of_session(entry.session_id), entry.cache_key.key)
                        pipe.pexpire(_of_session(entry.session_id), left_ms)
                    pipe.set(_ANSWER + entry.cache_key.key, json.dumps(value), px=left_ms)
            await pipe.execute()

    async def generation(self) -> int:
        """Return how often answers were deleted before their time."""
        async with self._using() as client:
            return int(await client.get(_GENERATION) or 0)

    async def evict(self, key: str) -> bool:
        """Delete one answer and say whether there was one."""
        async with self._using() as client:
            was_there = bool(await client.unlink(_ANSWER + key))
            if was_there:
                await client.incr(_GENERATION)
        return was_there

    async def forget(self, session_id: str) -> None:
        """Delete the answers that were made for a conversation."""
        async with self._using() as client:
            keys = await client.smembers(_of_session(session_id))
            if keys:
                await client.unlink(_of_session(session_id), *(_ANSWER + key.decode() for key in keys))
                await client.incr(_GENERATION)

    async def clear(self) -> int:
        """Delete all answers and return how many there were."""
        deleted = 0
        async with self._using() as client:
            async for keys in _keys(client):
                deleted += int(await client.unlink(*keys))
            await client.incr(_GENERATION)
        return deleted

    async def purge(self) -> None:
        """Redis lets go by itself."""

    async def sizes(self) -> Sizes:
        """Return how many answers there are, as far as that is quickly told; their bytes are not known here."""
        entries: int | None = None
        async with self._using() as client:
            if await client.dbsize() <= _MOST_COUNTED:  # going through more would hold up Redis
                entries = sum([len(keys) async for keys in _keys(client)])
        return Sizes(entries, None, None)

    async def page(self, *, limit: int, before: tuple[datetime, str] | None) -> list[CachedAnswer]:
        """Raise ``UnsupportedFeature``: Redis has no order in which to list them."""
        raise UnsupportedFeature(
            "Answers are stored in Redis, which cannot list them in order. An answer names its key; DELETE "
            "/cache/{key} deletes it and DELETE /cache all of them."
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Any]:
        """Give the client; its errors become ours."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - only where it is used, and not at the start

        if self._client is None:
            from redis.asyncio import Redis  # noqa: PLC0415 - as above

            self._client = Redis.from_url(
                self._address, socket_timeout=_WAIT_SECONDS, socket_connect_timeout=_WAIT_SECONDS
            )
        try:
            yield self._client
        except (RedisError, OSError) as error:
            raise DatabaseUnavailable(
                "Redis, where answers are stored, cannot be used now. See that it runs at REDIS_URL.",
                retry_after_seconds=5,
            ) from error


def _of_session(session_id: str) -> str:
    """Return the name of a conversation's set; it does not show the id, which may be a person's name."""
    return _SESSION + hashlib.sha256(session_id.encode()).hexdigest()


async def _keys(client: Any) -> AsyncIterator[list[bytes]]:
    """Yield the keys of all answers, many at a time."""
    cursor = 0
    while True:
        cursor, keys = await client.scan(cursor, match=f"{_ANSWER}*", count=_AT_ONCE)
        if keys:
            yield keys
        if cursor == 0:
            return
