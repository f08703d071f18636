"""Windows slide, are shared where servers are, and never stand in the way."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from ai_lab.database import Database, database_address
from ai_lab.errors import InvalidSettings
from ai_lab.rate_limits import RateLimits, Window
from ai_lab.rate_limits.memory import BoundedMemory
from ai_lab.rate_limits.window import Usage
from ai_lab.settings import Settings
from tests.postgres import PostgresServer

_DATABASE = "sqlite+aiosqlite:///unused.sqlite"


def _settings(**values: object) -> Settings:
    return Settings.model_validate({"database_url": _DATABASE, **values})


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[RateLimits]:
    database = Database(database_address(settings))
    limits = RateLimits.open(settings, database)
    try:
        yield limits
    finally:
        await limits.close()
        await database.close()


@pytest.fixture
def shared_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    name = postgres.migrated(migrated_template)
    yield postgres.url(name)
    postgres.give_back(name)


async def test_counts_per_client_and_endpoint() -> None:
    async with _opened(_settings(rate_limit_requests="3/hour")) as limits:
        windows = [await limits.hit("requests", "a", "GET /x") for _ in range(4)]
        assert [window.allowed for window in windows] == [True, True, True, False]
        assert [window.remaining for window in windows] == [2, 1, 0, 0]
        assert 0 < (windows[3].retry_after_seconds or 0) <= 3601
        assert (await limits.hit("requests", "b", "GET /x")).allowed
        assert (await limits.hit("requests", "a", "GET /y")).allowed


async def test_room_is_there_after_the_time_that_was_said() -> None:
    async with _opened(_settings(rate_limit_requests="4 per 1 second")) as limits:
        refused = await limits.hit("requests", "a")
        while refused.allowed:
            refused = await limits.hit("requests", "a")
        assert refused.retry_after_seconds is not None
        await asyncio.sleep(refused.retry_after_seconds)
        assert (await limits.hit("requests", "a")).allowed


def test_retry_after_is_when_there_is_room_and_not_much_later() -> None:
    """Held against stepping through time."""

    def has_room(usage: Usage, seconds: float) -> bool:
        left = usage.left_seconds - seconds
        if left >= 0:
            return math.floor(usage.previous * left / 60 + usage.current) + 1 <= 100
        return math.floor(usage.current * (left + 60) / 60) + 1 <= 100

    for previous, current, left in itertools.product(
        (0, 1, 50, 99, 100), (0, 1, 50, 99, 100), (0.0, 0.4, 30.0, 59.9, 60.0)
    ):
        usage = Usage(False, previous, left, current, left)
        if has_room(usage, 0):
            continue
        window = Window.of(usage, 100, 60)
        assert window.retry_after_seconds is not None
        assert has_room(usage, window.retry_after_seconds), usage
        assert window.retry_after_seconds <= 1 or not has_room(usage, window.retry_after_seconds - 1.001), usage


async def test_switched_off_limits_nothing() -> None:
    async with _opened(_settings(rate_limits=False, rate_limit_requests="1/minute")) as limits:
        windows = [await limits.hit("requests", "a") for _ in range(5)]
        assert all(window.allowed and window.limit == 0 for window in windows)


@pytest.mark.parametrize("bad", ["", "many", "0/minute", "5/fortnight", "1/second; 9/minute", "-3/minute"])
async def test_a_limit_that_says_nothing_is_refused_by_name(bad: str) -> None:
    with pytest.raises(InvalidSettings, match="AI_LAB_RATE_LIMIT_KEYS"):
        async with _opened(_settings(rate_limit_keys=bad)):
            pass


async def test_memory_stays_small_whatever_the_number_of_clients() -> None:
    memory = BoundedMemory()
    for number in range(45_000):
        await memory.acquire_sliding_window_entry(f"client {number}", 10, 60)
    assert len(memory.storage) <= 20_000
    assert len(memory.expirations) <= 20_000
    assert (await memory.get_sliding_window("client 44999", 60))[2] == 1


async def test_servers_on_one_database_share_a_window(shared_url: str) -> None:
    settings = _settings(database_url=shared_url, rate_limit_requests="20/hour")
    async with _opened(settings) as one, _opened(settings) as other:
        await _warmed(one, other)
        windows = await asyncio.gather(*(limits.hit("requests", "a") for limits in (one, other) * 30))
        assert one.store_failures + other.store_failures == 0
        assert sum(window.allowed for window in windows) == 20
        assert {window.remaining for window in windows} == set(range(20))


async def test_windows_in_the_database_slide_and_go(shared_url: str) -> None:
    settings = _settings(database_url=shared_url, rate_limit_requests="10 per 1 second")
    async with _opened(settings) as limits:
        await _warmed(limits)
        while (await limits.hit("requests", "a")).allowed:
            pass
        await asyncio.sleep(1.02 - time.time() % 1)  # into the next window
        allowed = [(await limits.hit("requests", "a")).allowed for _ in range(10)]
        assert sum(allowed) < 8  # those of the window before still weigh nearly all
        await asyncio.sleep(1)
        assert (await limits.hit("requests", "a")).allowed
        assert limits.store_failures == 0
        database = Database(database_address(settings))
        async with database.transaction() as db:
            await db.execute(text("UPDATE rate_limit_windows SET expires_at = 1"))
        limits._purge_after = 0.0
        await limits.hit("requests", "b")
        assert limits._purging
        await limits._purging
        async with database.reading() as db:
            assert (await db.execute(text("SELECT count(*) FROM rate_limit_windows"))).scalar_one() == 1
        await database.close()


async def _warmed(*every: RateLimits) -> None:
    """Connect: that may take longer than a request waits."""
    for limits in every:
        for _ in range(20):
            limits.store_failures, limits._alone_until = 0, 0.0
            await asyncio.gather(*(limits.hit("requests", f"warm {number}") for number in range(8)))
            if not limits.store_failures:
                break
