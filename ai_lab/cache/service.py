"""Answers that were given before: found again, stored, deleted, counted. It never stands in an answer's way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta

from ai_lab import cursor
from ai_lab.cache.canonical import cache_key_of
from ai_lab.cache.counts import Counts
from ai_lab.cache.database_store import DatabaseStore
from ai_lab.cache.memory import Kept
from ai_lab.cache.redis_store import RedisStore
from ai_lab.cache.schemas import CachedAnswerPage, CacheKey, CacheStats, Found, StoredAnswer
from ai_lab.cache.semantic import Embed, Likeness, NoSemanticLookup, SemanticLookup
from ai_lab.cache.store import AnswerStore, Entry, plain_of
from ai_lab.cache.tiers import Existing, Tiers
from ai_lab.database import Database
from ai_lab.errors import CachedAnswerNotFound
from ai_lab.providers import ChatRequest, Usage
from ai_lab.settings import Settings

#: Told of every look-up: its kind (exact, semantic, joined) and whether it found an answer.
Observe = Callable[[str, bool], None]

_MOST_ANSWER_BYTES = 1_000_000
_STALE_SECONDS = 2.0
#: A service may say anything; the sums must fit a column.
_LARGEST_COUNT = 2**31 - 1
_KEY = re.compile("[0-9a-f]{64}")


class AnswerCache:
    """Stored answers: those used last in memory, all of them in a store that the lab's servers share.

    Only what an operator asks for (``stats``, ``page``, ``evict``, ``clear``) fails where the store cannot be reached;
    for a request that is a miss.

    Args:
        settings: of the lab.
        store: shared by all servers.
        counts: of what happens here.
        likeness: finds questions that say the same.
        observe: see ``Observe``.
        stale_seconds: for as long answers may still be given from memory that another server has deleted.
        existing: see ``Existing``.

    Attributes:
        is_on: whether any request has a cache key; what was stored before can be seen and deleted all the same.
    """

    def __init__(
        self,
        settings: Settings,
        store: AnswerStore,
        counts: Counts,
        likeness: Likeness,
        observe: Observe | None = None,
        *,
        stale_seconds: float = _STALE_SECONDS,
        existing: Existing | None = None,
    ) -> None:
        self.is_on = settings.cache
        self._ttl = timedelta(seconds=settings.cache_seconds)
        self._most_temperature = settings.cache_temperature
        self._semantic = settings.semantic_cache if settings.cache else "off"
        self._tiers = Tiers(store, self._remember, stale_seconds=stale_seconds, existing=existing)
        self._counts = counts
        self._likeness = likeness
        self._observe = observe or (lambda _kind, _is_hit: None)

    @classmethod
    def open(
        cls,
        settings: Settings,
        database: Database,
        *,
        embed: Embed | None = None,
        observe: Observe | None = None,
        stale_seconds: float = _STALE_SECONDS,
        existing: Existing | None = None,
    ) -> AnswerCache:
        """Return the cache that the settings ask for; connects nowhere yet.

        With the semantic cache, answers are in the database even where there is a Redis: their vectors are.

        Args:
            settings: of the lab.
            database: of the lab.
            embed: makes vectors of questions; without it there is no semantic cache.
            observe: see ``Observe``.
            stale_seconds: as of the class.
            existing: as of the class.

        Raises:
            InvalidSettings: the address of Redis cannot be used.
        """
        likeness: Likeness = NoSemanticLookup()
        is_semantic = settings.cache and settings.semantic_cache != "off"
        if is_semantic and embed is not None:
            likeness = SemanticLookup.open(settings, database, embed=embed)
        store: AnswerStore = DatabaseStore(database, settings.cache_mb * 1_000_000)
        if settings.redis_url and not is_semantic:
            store = RedisStore(settings.redis_url.get_secret_value())
        return cls(settings, store, Counts(database), likeness, observe, stale_seconds=stale_seconds, existing=existing)

    def key_of(
        self,
        provider: str,
        model: str,
        request: ChatRequest,
        *,
        address: str | None = None,
        is_local_only: bool = False,
    ) -> CacheKey | None:
        """Return the cache key of a request, None where its answer is neither stored nor given again."""
        if not self.is_on:
            return None
        return cache_key_of(
            provider,
            model,
            request,
            most_temperature=self._most_temperature,
            address=address,
            is_local_only=is_local_only,
        )

    async def find(self, cache_key: CacheKey) -> Found | None:
        """Return the stored answer for a request, or for one whose question says the same. Never fails."""
        self._counts.add("lookups")
        found = await self._find_exact(cache_key)
        self._observe("exact", found is not None)
        return found or await self._find_alike(cache_key)

    def recent(self, cache_key: CacheKey) -> Found | None:
        """Return the answer if it was stored here a moment ago. No I/O."""
        kept = self._tiers.recent(cache_key.key)
        if kept is None:
            return None
        self._observe("joined", True)  # it was in the making when it was looked for
        return self._hit(cache_key.key, kept)

    async def store(
        self,
        cache_key: CacheKey,
        answer: StoredAnswer,
        *,
        session_id: str | None = None,
        message_id: str | None = None,
    ) -> None:
        """Keep a whole answer; it is written in the background, and goes with the message for which it was made."""
        made = plain_of(answer)
        if made is None or made[1] > _MOST_ANSWER_BYTES:
            return
        plain, size_bytes = made
        expires_at = answer.created_at + self._ttl
        entry = Entry(cache_key, plain, size_bytes, answer.created_at, expires_at, session_id, message_id)
        self._tiers.put(entry, Kept(answer, size_bytes, expires_at.timestamp()))

    def joined(self, usage: Usage | None) -> None:
        """Count a request that shared the answer to an identical one. No I/O."""
        self._counts.add("joined")
        self._observe("joined", True)
        self._save(usage)

    async def stats(self) -> CacheStats:
        """Return how much is stored and how often it helped. Raises ``DatabaseUnavailable``."""
        await self._tiers.flush()
        counts = await self._counts.totals()
        sizes = await self._tiers.store.sizes()
        names = ("lookups", "hits", "semantic_hits", "joined", "shadow_hits")
        saved = ("saved_prompt_tokens", "saved_completion_tokens")
        lookups = counts.get("lookups", 0)
        hits = counts.get("hits", 0) + counts.get("semantic_hits", 0)
        return CacheStats(
            enabled=self.is_on,
            store=self._tiers.store.name,
            semantic=self._semantic,
            entries=sizes.entries,
            size_bytes=sizes.size_bytes,
            limit_bytes=self._tiers.store.limit_bytes,
            memory_entries=len(self._tiers.memory),
            memory_bytes=self._tiers.memory.size_bytes,
            ttl_seconds=self._ttl.total_seconds(),
            **{name: counts.get(name, 0) for name in (*names, *saved)},
            hit_rate=round(min(1.0, hits / lookups), 4) if lookups else None,
            store_failures=self._tiers.failures,
            oldest_at=sizes.oldest_at,
        )

    async def page(self, *, limit: int = 20, after: str | None = None) -> CachedAnswerPage:
        """Return stored answers, the newest first. Raises ``InvalidCursor`` and ``DatabaseUnavailable``."""
        before = cursor.decode_moment(after) if after else None
        await self._tiers.flush()
        rows = await self._tiers.store.page(limit=limit + 1, before=before)
        data = rows[:limit]
        has_more = len(rows) > limit
        return CachedAnswerPage(
            data=data, has_more=has_more, after=cursor.encode(data[-1].created_at, data[-1].key) if has_more else None
        )

    async def evict(self, key: str) -> None:
        """Delete one answer, here at once and in other servers within seconds.

        Raises:
            CachedAnswerNotFound: there is none under this key, or not any more.
            DatabaseUnavailable: the store cannot be reached; other servers may still give it.
        """
        if not _KEY.fullmatch(key):  # a database would refuse some of what an address can hold
            raise _not_found()
        if not await self._tiers.evict(key):
            raise _not_found()

    async def forget(self, session_id: str) -> None:
        """Delete the answers that were made for a conversation, here at once and in other servers within seconds.

        Raises:
            DatabaseUnavailable: they are in the database. A Redis that cannot be used lets them go in their time.
        """
        await self._tiers.forget(session_id)

    async def clear(self) -> int:
        """Delete all answers, here at once and in other servers within seconds. Raises ``DatabaseUnavailable``."""
        return await self._tiers.clear()

    async def flush(self) -> None:
        """Write what waits, as far as the store can be reached."""
        await self._tiers.flush()
        await self._likeness.flush()

    async def close(self) -> None:
        """Write what waits and close the store."""
        await self._tiers.end_writing()
        await self._likeness.close()
        await self._counts.close()
        await self._tiers.store.close()

    async def _find_exact(self, cache_key: CacheKey) -> Found | None:
        kept = await self._tiers.get(cache_key.key, is_local_only=cache_key.is_local_only)
        return self._hit(cache_key.key, kept) if kept else None

    async def _find_alike(self, cache_key: CacheKey) -> Found | None:
        if self._likeness.mode == "off" or cache_key.question is None:
            return None
        alike = await self._likeness.find(cache_key.scope, cache_key.question)
        if alike is not None and self._likeness.mode == "shadow":
            self._counts.add("shadow_hits")
            self._observe("semantic", False)
            return None
        kept = await self._tiers.get(alike.key) if alike else None
        self._observe("semantic", kept is not None)
        if alike is None or kept is None:
            return None
        self._counts.hit(alike.key, "semantic")
        self._save(kept.answer.usage)
        return Found(kept.answer, "semantic", alike.key, alike.similarity, alike.question)

    def _hit(self, key: str, kept: Kept) -> Found:
        self._counts.hit(key, "hit")
        self._save(kept.answer.usage)
        return Found(kept.answer, "hit", key)

    def _save(self, usage: Usage | None) -> None:
        """Count tokens that nobody had to pay for; those that no server counted are not guessed."""
        if usage is not None and usage.prompt_tokens:
            self._counts.add("saved_prompt_tokens", min(usage.prompt_tokens, _LARGEST_COUNT))
        if usage is not None and usage.completion_tokens:
            self._counts.add("saved_completion_tokens", min(usage.completion_tokens, _LARGEST_COUNT))

    async def _remember(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.cache_key.question is not None:
                await self._likeness.remember(entry.cache_key.key, entry.cache_key.scope, entry.cache_key.question)


def _not_found() -> CachedAnswerNotFound:
    return CachedAnswerNotFound("No answer is stored under this key, or not any more.", param="key")
