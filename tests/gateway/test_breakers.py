"""Circuit breakers: when they open, who may try again, and what other servers and later starts see of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import delete, text, update
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.errors import (
    AddressRefused,
    BreakerOpen,
    ContentFiltered,
    ContextOverflow,
    DeadlineExceeded,
    EngineCrashed,
    LabError,
    ModelNotFound,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    RequestCancelled,
    StreamBroken,
    VaultSealed,
)
from ai_lab.gateway.admission import Admission
from ai_lab.gateway.breakers import Breakers
from ai_lab.gateway.tables import gateway_breakers
from ai_lab.lab import Lab
from tests.gateway.asking import open_lab
from tests.postgres import PostgresServer

FAILURES = 3
GONE = ProviderUnavailable("nobody listens")


@pytest.fixture(scope="module")
def shared_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    """Give a Postgres database for the whole file; every test empties the table."""
    name = postgres.create_database(migrated_template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{shutil.copy(migrated_file, tmp_path / 'lab.sqlite')}"
    else:
        url = request.getfixturevalue("shared_url")
    async with _opened(url) as database:
        yield database


@pytest_asyncio.fixture
async def postgres_databases(shared_url: str) -> AsyncIterator[tuple[Database, Database]]:
    async with _opened(shared_url) as first, _opened(shared_url) as second:
        yield first, second


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(make_url(url))
    yield database
    async with database.transaction() as db:
        await db.execute(delete(gateway_breakers))
    await database.close()


class Watched(Breakers):
    """Breakers that remember what they told their observer."""

    def __init__(self, database: Database, open_seconds: float = 60, failures: int = FAILURES) -> None:
        self.changes: list[str] = []
        super().__init__(
            database,
            failures=failures,
            open_seconds=open_seconds,
            observe=lambda *change: self.changes.append(change[2]),
        )

    async def fail(self, times: int = FAILURES, error: LabError = GONE, model: str = "tiny") -> None:
        for _ in range(times):
            (await self.admit("dead", model)).failed(error)


async def _answers(breakers: Breakers, model: str = "tiny") -> bool:
    """Return whether a request is let through; it is given up at once."""
    try:
        admission = await breakers.admit("dead", model)
    except BreakerOpen:
        return False
    admission.abandoned()
    return True


async def _probe(breakers: Breakers, model: str = "tiny") -> Admission:
    """Return the admission of the request that may try again, as soon as there is one."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await breakers.admit("dead", model)
            except BreakerOpen:
                await asyncio.sleep(0.01)


async def test_a_model_is_left_alone_after_failures_in_a_row(database: Database) -> None:
    breakers = Watched(database)
    await breakers.fail(FAILURES - 1)
    assert await _answers(breakers)
    (await breakers.admit("dead", "tiny")).succeeded()  # breaks the row
    await breakers.fail(FAILURES - 1)
    assert await _answers(breakers)
    await breakers.fail(1)
    with pytest.raises(BreakerOpen) as refused:
        await breakers.admit("dead", "tiny")
    assert refused.value.retry_after_seconds == 60
    assert "nobody listens" in refused.value.detail
    assert await _answers(breakers, "another model of the service")
    (state,) = await breakers.states()
    assert (state.provider, state.model, state.state, state.failures) == ("dead", "tiny", "open", FAILURES)
    assert (state.error_code, state.reason) == ("provider_unavailable", "nobody listens")
    assert breakers.changes == ["open"]
    await breakers.close()


_COUNTED = (
    ProviderUnavailable(),
    ProviderTimeout(),
    DeadlineExceeded(),
    ProviderError(),
    StreamBroken(),
    EngineCrashed(),
)
_NOT_COUNTED = (
    ProviderRateLimited(retry_after_seconds=5),
    ProviderAuthFailed(),
    ProviderRefused(),
    ContentFiltered(),
    ContextOverflow(),
    ModelNotFound("no such model"),
    AddressRefused(),
    VaultSealed(),
    RequestCancelled(),
)


async def test_only_faults_of_the_service_count(database: Database) -> None:
    breakers = Watched(database, failures=1)
    for error in (*_COUNTED, *_NOT_COUNTED):
        await breakers.fail(1, error, model=type(error).__name__)
    opened = {state.model for state in await breakers.states()}
    assert opened == {type(error).__name__ for error in _COUNTED}
    await breakers.close()


async def test_what_the_service_asks_for_is_kept(database: Database) -> None:
    breakers = Watched(database)
    await breakers.fail(1, ProviderRateLimited("slow down", retry_after_seconds=90), "limited")
    asked = [await breakers.admit("dead", "empty") for _ in range(10)]
    for one in asked:  # all at once: not one after the other, each with a longer wait
        one.failed(ProviderQuotaExceeded("no money"))
    await breakers.fail(FAILURES, ProviderUnavailable("back in two minutes", retry_after_seconds=120), "maintained")
    waits = {state.model: round(state.retry_after_seconds or 0) for state in await breakers.states()}
    assert waits == {"limited": 90, "empty": 60, "maintained": 120}
    await breakers.close()


async def test_an_account_without_quota_is_told_as_such_by_every_server(database: Database) -> None:
    first = Watched(database, open_seconds=0.5)
    await first.fail(1, ProviderQuotaExceeded("The account is empty: top it up."))
    await first.close()
    later = Watched(database)
    with pytest.raises(ProviderQuotaExceeded, match=r"empty: top it up.*DELETE /gateway/breakers/dead/tiny") as refused:
        await later.admit("dead", "tiny")
    assert (refused.value.status, refused.value.retry_after_seconds) == (402, 1)
    await asyncio.sleep(0.5)
    (await later.admit("dead", "tiny")).failed(ProviderUnavailable("gone"))  # the newest error is the one that is told
    with pytest.raises(BreakerOpen, match="gone"):
        await later.admit("dead", "tiny")
    await later.close()


async def test_one_of_many_tries_again_and_its_answer_opens_the_door(database: Database) -> None:
    breakers = Watched(database, open_seconds=0.3)
    late = await breakers.admit("dead", "tiny")
    await breakers.fail()
    late.succeeded()  # asked before: says nothing about now
    assert not await _answers(breakers)
    await asyncio.sleep(0.3)
    asked = await asyncio.gather(*(breakers.admit("dead", "tiny") for _ in range(50)), return_exceptions=True)
    admitted = [one for one in asked if isinstance(one, Admission)]
    assert len(admitted) == 1
    assert all(isinstance(one, BreakerOpen) for one in asked if one not in admitted)
    (state,) = await breakers.states()
    assert state.state == "half_open"
    admitted[0].answering()
    assert await _answers(breakers)
    admitted[0].succeeded()
    assert await breakers.states() == []
    assert breakers.changes == ["open", "half_open", "closed"]
    await breakers.close()


async def test_a_probe_that_fails_doubles_the_wait(database: Database) -> None:
    breakers = Watched(database, open_seconds=0.05)
    await breakers.fail()
    waits = []
    for _ in range(3):
        (await _probe(breakers)).failed(GONE)
        (state,) = await breakers.states()
        assert state.retry_at is not None
        assert state.opened_at is not None
        waits.append(round((state.retry_at - state.opened_at).total_seconds(), 3))
    assert waits == [0.1, 0.2, 0.4]
    await breakers.close()


async def test_a_model_that_breaks_off_again_on_trial_is_left_alone_at_once(database: Database) -> None:
    breakers = Watched(database, open_seconds=0.05)
    await breakers.fail()
    probe = await _probe(breakers)
    probe.answering()
    assert await _answers(breakers)
    probe.failed(StreamBroken())
    (state,) = await breakers.states()
    assert state.state == "open"
    assert state.retry_at is not None
    assert state.opened_at is not None
    assert round((state.retry_at - state.opened_at).total_seconds(), 3) == 0.1  # two stored moments
    await breakers.close()


@pytest.mark.parametrize("ending", ["cancelled", "never sent"])
async def test_a_probe_that_says_nothing_gives_its_place_to_the_next(database: Database, ending: str) -> None:
    breakers = Watched(database, open_seconds=0.05)
    await breakers.fail()
    probe = await _probe(breakers)
    assert not await _answers(breakers)
    if ending == "cancelled":
        probe.abandoned()
    else:
        probe.failed(VaultSealed())
    (await _probe(breakers)).succeeded()
    assert await breakers.states() == []
    await breakers.close()


async def test_a_refused_key_shows_that_the_service_is_there(database: Database) -> None:
    breakers = Watched(database, open_seconds=0.05)
    await breakers.fail()
    (await _probe(breakers)).failed(ProviderAuthFailed())
    assert await breakers.states() == []
    await breakers.close()


async def test_the_state_outlives_the_server(database: Database) -> None:
    first = Watched(database)
    await first.fail()
    await first.fail(1, model="failed once")
    await first.close()
    second = Watched(database)
    assert not await _answers(second)
    states = {state.model: (state.state, state.failures, state.reason) for state in await second.states()}
    assert states == {"tiny": ("open", FAILURES, "nobody listens"), "failed once": ("closed", 1, "nobody listens")}
    assert await second.reset("dead", "tiny")
    assert not await second.reset("dead", "tiny")
    assert await _answers(second)
    await second.close()
    third = Watched(database)
    assert await _answers(third)
    await third.close()


async def test_health_gives_the_reason_also_before_anybody_asks(tmp_path: Path, migrated_file: Path) -> None:
    async with open_lab(tmp_path, migrated_file) as lab:
        (await lab.breakers.admit("dead", "tiny")).failed(ProviderQuotaExceeded("top it up"))
    async with Lab.open(lab.settings) as lab:
        report = await lab.health.report()
    [gateway] = [component for component in report.components if component.component == "gateway"]
    assert gateway.detail == "left alone after failures: dead/tiny (top it up)"


async def test_two_servers_on_one_postgres_count_together_and_send_one_probe(
    postgres_databases: tuple[Database, Database],
) -> None:
    here, there = (Watched(one, open_seconds=1.2) for one in postgres_databases)
    await here.fail(FAILURES - 1)
    await _until(lambda: _knows(there, FAILURES - 1))
    await there.fail(1)  # the last one that is borne, of both together
    await _until(lambda: _refuses(here))
    await asyncio.sleep(1.2)
    asked = await asyncio.gather(
        *(one.admit("dead", "tiny") for one in (here, there) for _ in range(20)), return_exceptions=True
    )
    admitted = [one for one in asked if isinstance(one, Admission)]
    assert len(admitted) == 1
    admitted[0].succeeded()
    await _until(lambda: _answers(here))
    await _until(lambda: _answers(there))
    await here.close()
    await there.close()


async def test_the_probe_of_a_killed_server_is_replaced(postgres_databases: tuple[Database, Database]) -> None:
    killed, other = (Watched(one, open_seconds=0.05) for one in postgres_databases)
    await killed.fail()
    await _probe(killed)
    await _until(lambda: _state_is(other, "half_open"))
    assert not await _answers(other)
    async with postgres_databases[1].transaction() as db:
        await db.execute(update(gateway_breakers).values(probe_until=text("extract(epoch FROM clock_timestamp()) - 1")))
    (await _probe(other)).succeeded()
    assert await other.states() == []
    await killed.close()
    await other.close()


async def test_without_its_database_a_server_goes_on_by_itself() -> None:
    nowhere = Database(make_url("postgresql+asyncpg://nobody@/nothing?host=/nonexistent"))
    breakers = Watched(nowhere, open_seconds=0.3)
    await breakers.fail()
    assert not await _answers(breakers)
    (await _probe(breakers)).succeeded()
    assert await _answers(breakers)
    await breakers.close()
    await nowhere.close()


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def _knows(breakers: Breakers, failures: int) -> bool:
    await _answers(breakers)
    return [state.failures for state in breakers.known()] == [failures]


async def _refuses(breakers: Breakers) -> bool:
    return not await _answers(breakers)


async def _state_is(breakers: Breakers, state: str) -> bool:
    return [one.state for one in await breakers.states()] == [state]
