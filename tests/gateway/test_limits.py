"""Limits of services: places at once, in order, shared on Postgres; requests and tokens in a period."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import delete, text, update
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.errors import InvalidSettings, ServiceLimited
from ai_lab.gateway.queues import PLACES_ELSEWHERE, PLACES_HERE, ServiceQueue
from ai_lab.gateway.slots_repository import SharedSlots, SlotRepository
from ai_lab.gateway.tables import gateway_slots
from ai_lab.rate_limits.tables import rate_limit_windows
from ai_lab.settings import Settings
from tests.postgres import PostgresServer

_NOWHERE = "postgresql+asyncpg://nobody@/nothing?host=/nonexistent"


def _settings(**limits: object) -> Settings:
    return Settings.model_validate({"service_limits": {"hosted": limits} if limits else {}})


@pytest_asyncio.fixture
async def database() -> AsyncIterator[Database]:
    database = Database(make_url("sqlite+aiosqlite:///unused.sqlite"))
    yield database
    await database.close()


class Busy:
    """Requests that hold places until they are told to end."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.most_at_once = 0
        self._now = 0
        self._end = asyncio.Event()

    async def run(
        self, queue: ServiceQueue, number: int, *, is_local: bool = False, seconds: float | None = None
    ) -> None:
        async with queue.place("hosted", is_local=is_local):
            self.begun.append(number)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._end.wait()
            finally:
                self._now -= 1

    def end(self) -> None:
        self._end.set()


@pytest.mark.parametrize(("is_local", "places"), [(True, PLACES_HERE), (False, PLACES_ELSEWHERE)])
async def test_a_service_has_so_many_places_and_the_rest_wait_in_turn(
    database: Database, is_local: bool, places: int
) -> None:
    held_back: list[str] = []
    queue, busy = ServiceQueue(_settings(), database, observe=held_back.append), Busy()
    tasks = [asyncio.create_task(busy.run(queue, number, is_local=is_local)) for number in range(places + 5)]
    await asyncio.sleep(0.01)
    assert len(busy.begun) == places
    (use,) = queue.uses()
    assert (use.in_use, use.waiting, use.concurrency, use.is_shared) == (places, 5, places, False)
    async with queue.place("another service"):  # has places of its own
        pass
    tasks[places].cancel()  # the first that waits: the others move up
    await asyncio.sleep(0)
    busy.end()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert busy.begun == [*range(places), *range(places + 1, places + 5)]
    assert busy.most_at_once == places
    assert queue.uses()[1].in_use == 0
    assert held_back == ["concurrency"] * 5
    await queue.close()


async def test_places_survive_any_cancelling(database: Database) -> None:
    queue, busy = ServiceQueue(_settings(concurrency=2), database), Busy()
    tasks = [asyncio.create_task(busy.run(queue, number, seconds=0.001 * (number % 3))) for number in range(60)]
    for number, task in enumerate(tasks):
        await asyncio.sleep(0)
        if number % 2:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert busy.most_at_once == 2
    (use,) = queue.uses()
    assert (use.in_use, use.waiting) == (0, 0)
    await queue.close()


async def test_a_place_given_to_somebody_who_leaves_at_that_instant_goes_on(database: Database) -> None:
    queue, busy = ServiceQueue(_settings(concurrency=1), database), Busy()
    async with queue.place("hosted"):
        leaving, next_one = (asyncio.create_task(busy.run(queue, number, seconds=0)) for number in range(2))
        await asyncio.sleep(0.01)
    leaving.cancel()  # it has the place, and does not know yet
    await asyncio.wait_for(next_one, 30)
    assert busy.begun == [1]
    assert queue.uses()[0].in_use == 0
    await queue.close()


async def test_nobody_waits_for_a_place_beyond_the_deadline(database: Database) -> None:
    queue = ServiceQueue(_settings(concurrency=1), database)
    async with queue.place("hosted"):
        with pytest.raises(ServiceLimited, match="AI_LAB_SERVICE_LIMITS"):
            async with queue.place("hosted", deadline=asyncio.get_running_loop().time() + 0.1):
                raise AssertionError("was let through")
    async with queue.place("hosted"):  # what was given up holds nothing
        pass
    await queue.close()


async def test_requests_in_a_period_wait_a_moment_or_are_refused(database: Database) -> None:
    held_back: list[str] = []
    queue = ServiceQueue(_settings(requests="2 per 1 second"), database, observe=held_back.append)
    for _ in range(4):  # the third and fourth wait for their share
        async with queue.place("hosted"):
            pass
    assert held_back[0] == "requests"
    await queue.close()
    queue = ServiceQueue(_settings(requests="2/hour"), database)
    for _ in range(2):
        async with queue.place("hosted"):
            pass
    with pytest.raises(ServiceLimited, match="2/hour") as refused:
        async with queue.place("hosted"):
            raise AssertionError("was let through")
    assert 5 < (refused.value.retry_after_seconds or 0) <= 3601
    assert queue.uses()[0].in_use == 0
    await queue.close()


async def test_tokens_count_by_their_number(database: Database) -> None:
    queue = ServiceQueue(_settings(tokens="1000/hour"), database)
    assert queue.counts_tokens("hosted")
    assert not queue.counts_tokens("another service")
    async with queue.place("hosted", tokens=600):
        pass
    with pytest.raises(ServiceLimited, match="tokens"):
        async with queue.place("hosted", tokens=600):
            raise AssertionError("was let through")
    async with queue.place("hosted", tokens=400):
        pass
    await queue.close()
    queue = ServiceQueue(_settings(tokens="1000/hour"), database)
    async with queue.place("hosted", tokens=5000):  # more than ever fits in: takes all of it
        pass
    await queue.close()


def test_a_limit_that_is_none_is_named(database: Database) -> None:
    with pytest.raises(InvalidSettings, match="requests of hosted in AI_LAB_SERVICE_LIMITS"):
        ServiceQueue(_settings(requests="many"), database)


async def test_two_servers_share_the_places_that_are_configured(
    databases: tuple[Database, Database], settings: Settings
) -> None:
    queues = [ServiceQueue(settings, one) for one in databases]
    busy = Busy()
    tasks = [asyncio.create_task(busy.run(queue, number)) for number in range(5) for queue in queues]
    async with asyncio.timeout(30):
        while len(busy.begun) < 3:  # noqa: ASYNC110 - what comes too many comes after that
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert len(busy.begun) == 3
    busy.end()
    await asyncio.gather(*tasks)
    assert len(busy.begun) == 10
    assert busy.most_at_once == 3
    for queue in queues:
        assert queue.uses()[0].is_shared
        await queue.close()
    async with databases[0].reading() as db:
        assert (await db.execute(text("SELECT count(*) FROM gateway_slots"))).scalar() == 0


async def test_servers_count_one_after_the_other(databases: tuple[Database, Database]) -> None:
    here, there = databases
    async with here.transaction() as db:
        assert await SlotRepository(db).take("one", "hosted", 1, 30)
        other = asyncio.create_task(SharedSlots(there).take("two", "hosted", 1, 30))
        await asyncio.sleep(0.1)
        assert not other.done()  # this one is not committed, and so not seen
    assert not await other


async def test_places_of_a_killed_server_are_free_after_a_while(
    databases: tuple[Database, Database], settings: Settings
) -> None:
    killed, other = (ServiceQueue(settings, one) for one in databases)
    holding = [killed.place("hosted") for _ in range(3)]
    for place in holding:
        await place.__aenter__()
    with pytest.raises(ServiceLimited):
        async with other.place("hosted", deadline=asyncio.get_running_loop().time() + 0.2):
            raise AssertionError("was let through")
    async with databases[1].transaction() as db:  # as if nobody had renewed them for long
        await db.execute(update(gateway_slots).values(expires_at=0.0))
    async with other.place("hosted", deadline=asyncio.get_running_loop().time() + 5):
        pass
    for place in holding:
        await place.__aexit__(None, None, None)
    await killed.close()
    await other.close()


async def test_two_servers_share_a_period(databases: tuple[Database, Database]) -> None:
    queues = [ServiceQueue(_settings(tokens="1000/hour"), one) for one in databases]
    async with queues[0].place("hosted", tokens=600):
        pass
    with pytest.raises(ServiceLimited):
        async with queues[1].place("hosted", tokens=600):
            raise AssertionError("was let through")
    for queue in queues:
        await queue.close()


async def test_without_its_database_a_server_counts_by_itself(settings: Settings) -> None:
    nowhere = Database(make_url(_NOWHERE))
    queue, busy = ServiceQueue(settings, nowhere), Busy()
    await asyncio.gather(*(busy.run(queue, number, seconds=0.01) for number in range(6)))
    assert busy.most_at_once == 3
    await queue.close()
    await nowhere.close()


@pytest.fixture
def settings() -> Settings:
    return _settings(concurrency=3)


@pytest.fixture(scope="module")
def shared_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    """Give a database for the whole file; every test empties its tables."""
    name = postgres.create_database(migrated_template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest_asyncio.fixture
async def databases(shared_url: str) -> AsyncIterator[tuple[Database, Database]]:
    databases = Database(make_url(shared_url)), Database(make_url(shared_url))
    yield databases
    async with databases[0].transaction() as db:
        await db.execute(delete(gateway_slots))
        await db.execute(delete(rate_limit_windows))
    for one in databases:
        await one.close()
