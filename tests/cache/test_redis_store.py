"""Answers on a real Redis, and what happens without it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from ai_lab.errors import CachedAnswerNotFound, DatabaseUnavailable, InvalidSettings, UnsupportedFeature
from tests.cache.answers import answer, key_of, opened
from tests.cache.redis_server import RedisServer, needs_redis
from tests.security.canary import new_secret
from tests.server import free_port

pytestmark = needs_redis()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def sqlite_url(migrated_sqlite: str, server: RedisServer) -> str:
    with server.client() as client:
        client.flushall()
    return migrated_sqlite


async def test_servers_share_answers_and_what_is_deleted(sqlite_url: str, server: RedisServer) -> None:
    whole = answer("Ein Tor \0 門", reasoning="Hm.")
    settings: dict[str, Any] = {"redis_url": server.url, "stale_seconds": 0.0}
    async with opened(sqlite_url, **settings) as one, opened(sqlite_url, **settings) as other:
        assert await one.find(key_of(one)) is None
        assert await other.find(key_of(other)) is None
        for question in ("a", "b"):
            await one.store(key_of(one, question), whole)
        await one.flush()
        hits = [await other.find(key_of(other, question)) for question in ("a", "b")]
        assert [hit and hit.answer for hit in hits] == [whole, whole]
        stats = await other.stats()
        assert (stats.store, stats.entries, stats.size_bytes, stats.limit_bytes) == ("redis", 2, None, None)
        assert (stats.lookups, stats.hits) == (3, 2)
        with pytest.raises(UnsupportedFeature):
            await one.page()
        await one.evict(key_of(one, "a").key)
        assert await other.find(key_of(other, "a")) is None
        with pytest.raises(CachedAnswerNotFound):
            await other.evict(key_of(other, "a").key)
        assert await one.clear() == 1
        assert await other.find(key_of(other, "b")) is None
        assert await one.find(key_of(one, "b")) is None


async def test_the_answers_of_a_conversation_go_with_it_at_all_servers(sqlite_url: str, server: RedisServer) -> None:
    async def existing(identifiers: Collection[str]) -> set[str]:
        return set(identifiers) - {"late"}

    settings: dict[str, Any] = {"redis_url": server.url, "stale_seconds": 0.0, "existing": existing}
    async with opened(sqlite_url, **settings) as one, opened(sqlite_url, **settings) as other:
        await one.store(key_of(one, "a"), answer(), session_id="s", message_id="m")
        await one.store(key_of(one, "b"), answer(), session_id="t", message_id="n")
        await one.flush()
        assert await other.find(key_of(other, "a"))
        await one.forget("s")
        await one.store(key_of(one, "c"), answer(), session_id="s", message_id="late")
        await one.flush()
        for cache in (one, other):
            hits = [bool(await cache.find(key_of(cache, question))) for question in ("a", "b", "c")]
            assert hits == [False, True, False]
        with server.client() as client:
            assert len(client.keys("ai-lab:cache:answer:*")) == 1


async def test_redis_lets_go_what_is_over(sqlite_url: str, server: RedisServer) -> None:
    async with opened(sqlite_url, redis_url=server.url, cache_seconds=30) as cache:
        await cache.store(key_of(cache), answer())
        await cache.flush()
    with server.client() as client:
        (name,) = client.keys()
        assert name == f"ai-lab:cache:answer:{key_of(cache).key}".encode()
        assert 25_000 < client.pttl(name) <= 30_000


async def test_what_must_stay_on_this_machine_is_in_memory_alone(sqlite_url: str, server: RedisServer) -> None:
    async with opened(sqlite_url, redis_url=server.url) as cache:
        cache_key = key_of(cache, is_local_only=True)
        assert await cache.find(cache_key) is None
        await cache.store(cache_key, answer())
        await cache.flush()
        assert await cache.find(cache_key)
        with server.client() as client:
            assert client.keys() == []
        await cache.evict(cache_key.key)
        assert await cache.find(cache_key) is None


async def test_what_others_wrote_there_is_a_miss(sqlite_url: str, server: RedisServer) -> None:
    async with opened(sqlite_url, redis_url=server.url) as cache:
        for value in (b"nonsense", b"[]", b"{}", b'{"expires_at": 1, "answer": {"text": 1}}', b"\xff"):
            with server.client() as client:
                client.set(f"ai-lab:cache:answer:{key_of(cache).key}", value)
            assert await cache.find(key_of(cache)) is None
        assert (await cache.stats()).store_failures == 0


async def test_a_redis_that_goes_and_comes_stands_in_nobodys_way(
    migrated_sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = RedisServer()
    async with opened(migrated_sqlite, redis_url=server.url) as cache:
        started = time.monotonic()
        assert await cache.find(key_of(cache)) is None
        await cache.store(key_of(cache), answer())
        await cache.flush()
        assert await cache.find(key_of(cache))
        for question in ("b", "c", "d"):
            assert await cache.find(key_of(cache, question)) is None
        assert cache._tiers.failures == 2  # the first look and the write; after that it is left alone for a while
        assert time.monotonic() - started < 2
        await cache.forget("s")
        assert await cache.find(key_of(cache)) is None
        with pytest.raises(DatabaseUnavailable, match="REDIS_URL"):
            await cache.clear()
        with server:
            cache._tiers._alone_until = 0.0
            await cache.store(key_of(cache, "b"), answer())
            await cache.flush()
            assert await cache.find(key_of(cache, "b"))
            assert await cache.clear() == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("url", ["http://:{}@127.0.0.1:6379", "redis://:{}@127.0.0.1:port", "redis://:{}@[::1", "{}"])
async def test_an_address_that_is_none_is_refused_without_saying_it(url: str, migrated_sqlite: str) -> None:
    with pytest.raises(InvalidSettings, match="REDIS_URL") as refusal:
        async with opened(migrated_sqlite, redis_url=url.format(new_secret())):
            pass
    assert "CANARY" not in str(refusal.value)


async def test_nothing_is_asked_before_it_is_needed(migrated_sqlite: str) -> None:
    async with opened(migrated_sqlite, redis_url=f"redis://127.0.0.1:{free_port()}/0") as cache:
        assert cache._tiers.store._client is None  # type: ignore[attr-defined]  # of this store
