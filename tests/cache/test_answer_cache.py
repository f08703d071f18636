"""Answers are found again, also by other servers and after a restart, until they are over or deleted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.cache import AnswerCache, StoredAnswer
from ai_lab.cache.database_store import DatabaseStore
from ai_lab.cache.memory import Kept
from ai_lab.cache.schemas import CacheStats
from ai_lab.cache.store import Entry
from ai_lab.cache.tiers import Tiers
from ai_lab.database import Database
from ai_lab.errors import CachedAnswerNotFound, DatabaseUnavailable, InvalidCursor
from ai_lab.providers import Usage
from tests.cache.answers import answer, key_of, opened, request

_UNCHANGED = {"enabled": True, "store": "database", "semantic": "off", "store_failures": 0}


async def found(cache: AnswerCache, question: str = "What is a gateway?") -> StoredAnswer | None:
    hit = await cache.find(key_of(cache, question))
    return hit.answer if hit else None


async def test_an_answer_is_given_again_at_once_and_after_a_restart(database_url: str) -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": "\0{}"}}
    whole = answer(
        "Ein Tor \0 - 門.",
        reasoning="Hm.",
        tool_calls=(call,),
        warnings=("No seed.",),
        usage=Usage(7, 3, cached_tokens=0, reasoning_tokens=1),
    )
    async with opened(database_url) as cache:
        assert await found(cache) is None
        await cache.store(key_of(cache), whole)
        hit = await cache.find(key_of(cache))
        assert hit
        assert (hit.answer, hit.kind, hit.key, hit.similarity) == (whole, "hit", key_of(cache).key, None)
        assert await found(cache, "Another?") is None
    async with opened(database_url) as cache:
        assert await found(cache) == whole
        stats = await cache.stats()
    shown = stats.model_dump(exclude={"size_bytes", "memory_bytes", "oldest_at", "limit_bytes", "ttl_seconds"})
    assert shown == _UNCHANGED | {
        "entries": 1,
        "memory_entries": 1,
        "lookups": 4,
        "hits": 2,
        "semantic_hits": 0,
        "joined": 0,
        "shadow_hits": 0,
        "hit_rate": 0.5,
        "saved_prompt_tokens": 14,
        "saved_completion_tokens": 6,
    }
    assert stats.oldest_at == whole.created_at


async def test_what_is_stored_after_a_deletion_stays(database_url: str) -> None:
    async with opened(database_url, stale_seconds=0) as cache:
        assert await found(cache) is None
        await cache.store(key_of(cache), answer("old"))
        assert await found(cache)
        assert await cache.clear() == 1
        await cache.store(key_of(cache), answer("new"))
        kept = await found(cache)  # it waits to be written
        assert kept
        assert kept.text == "new"


async def test_without_lookups_there_is_no_hit_rate(migrated_sqlite: str) -> None:
    async with opened(migrated_sqlite) as cache:
        stats = await cache.stats()
    assert (stats.hit_rate, stats.lookups, stats.entries, stats.size_bytes, stats.oldest_at) == (None, 0, 0, 0, None)


async def test_servers_share_answers_and_what_is_deleted(migrated_postgres: str) -> None:
    async with opened(migrated_postgres, stale_seconds=0) as one, opened(migrated_postgres, stale_seconds=0) as other:
        for cache in (one, other):
            assert await found(cache) is None
        for question in ("a", "b", "c"):
            await one.store(key_of(one, question), answer(question))
        await one.flush()
        for question in ("a", "b", "c"):
            assert await found(other, question)
        await one.evict(key_of(one, "a").key)
        assert (await found(other, "a"), await found(one, "a")) == (None, None)
        assert await found(other, "b")
        assert await one.clear() == 2
        assert [await found(cache, name) for cache in (one, other) for name in ("b", "c")] == [None] * 4
        assert (await other.stats()).entries == 0


async def test_deletions_elsewhere_are_looked_for_once_in_a_while(migrated_postgres: str) -> None:
    async with opened(migrated_postgres) as one, opened(migrated_postgres, stale_seconds=0.3) as other:
        assert await found(other) is None
        await other.store(key_of(other), answer())
        await other.flush()
        await one.clear()
        assert await found(other)
        await asyncio.sleep(0.3)
        assert await found(other) is None


async def test_an_answer_is_over_after_its_time(migrated_sqlite: str) -> None:
    async with opened(migrated_sqlite, cache_seconds=0.3) as cache:
        assert await found(cache) is None
        await cache.store(key_of(cache), answer())
        assert await found(cache)
        await cache.flush()
        await asyncio.sleep(0.35)
        assert await found(cache) is None
        stats = await cache.stats()
        assert (stats.entries, stats.size_bytes, stats.memory_entries) == (0, 0, 0)
        assert await rows(migrated_sqlite) == 1
        await cache._tiers.store.purge()
        assert await rows(migrated_sqlite) == 0


async def rows(database_url: str) -> int:
    database = Database(make_url(database_url))
    try:
        async with database.reading() as db:
            return int((await db.execute(text("SELECT count(*) FROM cached_answers"))).scalar_one())
    finally:
        await database.close()


async def test_the_oldest_go_when_there_is_too_much(database_url: str) -> None:
    async with opened(database_url, cache_mb=1) as cache:
        for number in range(30):
            await cache.store(key_of(cache, f"{number}"), answer("x" * 50_000))
        stats = await cache.stats()
        assert stats.size_bytes
        assert 800_000 < stats.size_bytes <= 900_000
        assert stats.entries == stats.size_bytes // 50_000
        listed = await cache.page(limit=100)
        assert [entry.key for entry in listed.data] == [
            key_of(cache, f"{number}").key for number in range(29, 29 - stats.entries, -1)
        ]


async def test_too_long_and_unspeakable_answers_are_not_stored(migrated_sqlite: str) -> None:
    async with opened(migrated_sqlite) as cache:
        for number, unfit in enumerate([answer("x" * 1_000_001), answer("\ud800")]):
            await cache.store(key_of(cache, f"{number}"), unfit)
            assert await found(cache, f"{number}") is None
        assert (await cache.stats()).entries == 0


async def test_pages_and_evictions(database_url: str) -> None:
    async with opened(database_url) as cache:
        for number in range(5):
            await cache.store(key_of(cache, f"{number}"), answer(f"{number}"))
        keys = [key_of(cache, f"{number}").key for number in range(4, -1, -1)]
        first = await cache.page(limit=3)
        assert [entry.key for entry in first.data] == keys[:3]
        second = await cache.page(limit=3, after=first.after)
        assert [entry.key for entry in second.data] == keys[3:]
        assert (second.has_more, second.after) == (False, None)
        with pytest.raises(InvalidCursor):
            await cache.page(after="nonsense")
        assert await found(cache, "4")
        await cache._counts.flush()
        shown = (await cache.page(limit=1)).data[0]
        assert (shown.hits, shown.semantic_hits, shown.model, shown.question) == (1, 0, "tiny", None)
        assert shown.last_hit_at
        await cache.evict(keys[0])
        assert await found(cache, "4") is None
        with pytest.raises(CachedAnswerNotFound):
            await cache.evict(keys[0])
        assert await cache.clear() == 4


async def test_switched_off_it_only_shows_and_deletes_what_there_is(migrated_sqlite: str) -> None:
    async with opened(migrated_sqlite) as cache:
        await cache.store(key_of(cache), answer())
    async with opened(migrated_sqlite, cache=False) as cache:
        assert cache.key_of("fake", "tiny", request()) is None
        stats = await cache.stats()
        assert (stats.enabled, stats.entries) == (False, 1)
        assert await cache.clear() == 1


async def test_without_its_database_everything_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/missing/none.sqlite") as cache:
        assert await found(cache) is None
        await cache.store(key_of(cache), answer())
        assert await found(cache)  # from memory
        await cache.flush()
        assert await found(cache, "Another?") is None
        with pytest.raises(DatabaseUnavailable):
            await cache.stats()
        with pytest.raises(DatabaseUnavailable):
            await cache.clear()
        assert await found(cache) is None  # deleted from memory all the same
        assert cache._counts._sums["lookups"] == 4  # they wait
    for (
        thread
    ) in threading.enumerate():  # of connections that could not be made: they end by themselves, a little later
        if "_connection_worker" in thread.name:
            await asyncio.to_thread(thread.join, 5)
    assert [record.message[:40] for record in caplog.records if "answers cannot" in record.message] == [
        "the store of answers cannot be used (Dat"
    ]


async def test_on_sqlite_nothing_is_read_for_what_is_new(migrated_sqlite: str) -> None:
    async with opened(migrated_sqlite) as cache:
        for number in range(3):
            await cache.store(key_of(cache, f"{number}"), answer())
    reads: list[str] = []
    async with opened(
        migrated_sqlite, observe_database=lambda what, _seconds, _failed: reads.append(what), stale_seconds=60
    ) as cache:
        assert await found(cache, "0")  # before all keys are known
        await cache.store(key_of(cache, "3"), answer())
        await cache._tiers.store._reading_keys  # type: ignore[attr-defined]  # of this store
        await cache.flush()
        reads.clear()
        assert [await found(cache, f"new {number}") for number in range(50)] == [None] * 50
        assert "read" not in reads
        cache._tiers._forget_memory()
        assert all([await found(cache, f"{number}") for number in range(4)])
        assert reads.count("read") == 4


async def test_counts_add_up_when_servers_write_them_together(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        await one.store(key_of(one), answer())
        await one.flush()

        async def look(cache: AnswerCache) -> None:
            for number in range(50):
                assert bool(await found(cache)) != bool(await found(cache, f"missing {number}"))
                if number % 10 == 0:
                    await cache._counts.flush()

        await asyncio.gather(look(one), look(other))
        await one._counts.flush()
        stats: CacheStats = await other.stats()
        assert (stats.lookups, stats.hits) == (200, 100)
        assert (await one.page()).data[0].hits == 100


async def test_counts_that_no_column_holds_harm_nobody(database_url: str) -> None:
    async with opened(database_url) as cache:
        assert await found(cache) is None
        await cache.store(key_of(cache), answer(usage=Usage(10**30, 10**30)))
        for _ in range(3):
            assert await found(cache)
        cache.joined(Usage(10**30))
        stats = await cache.stats()
        assert stats.hits == 3
        assert stats.saved_prompt_tokens == 4 * (2**31 - 1)


async def test_an_answer_goes_with_the_conversation_that_it_was_made_for_last(database_url: str) -> None:
    async with opened(database_url, stale_seconds=0.0) as one, opened(database_url, stale_seconds=0.0) as other:
        for session_id in ("s", "t"):
            await one.store(key_of(one), answer(session_id), session_id=session_id)
            await one.flush()
        for session_id, is_there in (("s", True), ("t", False)):
            await one.forget(session_id)
            for cache in (one, other):
                assert bool(await cache.find(key_of(cache))) is is_there


class _SlowStore(DatabaseStore):
    """A store whose answers are on their way until ``arrive`` is set."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, 1_000_000)
        self.asked, self.arrive = asyncio.Event(), asyncio.Event()

    async def get(self, key: str) -> Kept | None:
        kept = await super().get(key)
        self.asked.set()
        await self.arrive.wait()
        return kept


@pytest.mark.parametrize("is_whole", [True, False])
async def test_an_answer_on_its_way_from_the_store_is_not_kept_after_its_deletion(
    database_url: str, is_whole: bool
) -> None:
    async with opened(database_url) as other:
        await other.store(key_of(other), answer(), session_id="s")
        key = key_of(other).key
    database = Database(make_url(database_url))
    store = _SlowStore(database)

    async def nothing(_written: Sequence[Entry]) -> None: ...

    tiers = Tiers(store, nothing, stale_seconds=3600)
    looking = asyncio.create_task(tiers.get(key))
    await store.asked.wait()
    await (tiers.clear() if is_whole else tiers.forget("s"))
    store.arrive.set()
    assert await looking
    assert tiers.recent(key) is None
    await tiers.end_writing()
    await store.close()
    await database.close()
