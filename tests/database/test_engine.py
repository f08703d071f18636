import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InternalError, StatementError

from ai_lab.database import Database
from ai_lab.database.setup import prepare_database
from ai_lab.errors import DatabaseBusy, DatabaseUnavailable


@pytest.fixture
async def counter(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    async with database.transaction() as db:
        await db.execute(text("CREATE TABLE counter (value INTEGER)"))
        await db.execute(text("INSERT INTO counter VALUES (0)"))
    yield database
    await database.close()


async def read(database: Database) -> int:
    async with database.reading() as db:
        value: int = (await db.execute(text("SELECT value FROM counter"))).scalar_one()
        return value


async def test_no_update_is_lost_among_many_writers(counter: Database) -> None:
    """SQLite's default transactions lost 375 of 400 such updates without an error."""

    async def add() -> None:
        for _ in range(25):
            async with counter.transaction() as db:
                if counter.is_sqlite:
                    value = (await db.execute(text("SELECT value FROM counter"))).scalar_one()
                    await db.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})
                else:
                    await db.execute(text("UPDATE counter SET value = value + 1"))

    await asyncio.gather(*(add() for _ in range(16)))
    assert await read(counter) == 400


async def test_a_statement_that_never_started_took_no_time(database_url: str) -> None:
    """It must not be given the start of the one before it on the same connection."""
    seen: list[tuple[str, float, bool]] = []
    database = Database(make_url(database_url), observe=lambda *told: seen.append(told))
    async with database.reading() as db:
        await db.execute(text("SELECT 1"))
        await asyncio.sleep(0.01)
        with pytest.raises(StatementError):
            await db.execute(text("SELECT :missing"))
    await database.close()
    (sound,) = [seconds for what, seconds, failed in seen if what == "select" and not failed]
    assert sound > 0
    assert [seconds for what, seconds, failed in seen if what == "select" and failed] == [0.0]


async def test_an_error_inside_undoes_all_of_it(counter: Database) -> None:
    async def fail() -> None:
        async with counter.transaction() as db:
            await db.execute(text("UPDATE counter SET value = 7"))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await read(counter) == 0


async def test_cancelled_work_gives_its_connection_back(counter: Database) -> None:
    async def hold() -> None:
        async with counter.transaction() as db:
            await db.execute(text("UPDATE counter SET value = 9"))
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(hold()) for _ in range(10)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await read(counter) == 0
    assert counter.connections_in_use() == 0


async def test_a_reader_cannot_write_to_sqlite(tmp_path: Path) -> None:
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/x.sqlite")
    await prepare_database(url)
    database = Database(url)
    with pytest.raises((DBAPIError, DatabaseUnavailable)):
        async with database.reading() as db:
            await db.execute(text("DELETE FROM messages"))
    await database.close()


async def test_another_program_that_holds_the_lock_ends_in_an_answer_for_everybody(tmp_path: Path) -> None:
    """Those who wait in the queue wait no longer than the one at its head."""
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/x.sqlite")
    await prepare_database(url)
    database = Database(url)
    other = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def write() -> str:
        try:
            async with database.transaction() as db:
                await db.execute(text("DELETE FROM messages"))
        except DatabaseBusy as error:
            return f"try again in {error.retry_after_seconds:g} s"
        return "done"

    async with asyncio.timeout(20):
        assert await asyncio.gather(*(write() for _ in range(5))) == ["try again in 5 s"] * 5
    other.execute("ROLLBACK")
    other.close()
    assert await write() == "done"
    await database.close()


async def test_a_write_that_is_cancelled_holds_no_lock(counter: Database) -> None:
    """The traceback of a cancelled task keeps its cursor, and with that SQLite's connection, alive."""
    rows = [{"value": number} for number in range(1, 2000)]

    async def write() -> None:
        async with counter.transaction() as db:
            await db.execute(text("INSERT INTO counter VALUES (:value)"), rows)

    errors: list[BaseException | None] = []
    for attempt in range(10):
        task = asyncio.create_task(write())
        await asyncio.sleep(0.0005 * attempt)
        task.cancel()
        errors += await asyncio.gather(task, return_exceptions=True)
        async with counter.transaction() as db:
            await db.execute(text("UPDATE counter SET value = value + 1 WHERE value = 0"))
            await db.execute(text("INSERT INTO counter VALUES (0)"))
    assert any(isinstance(error, asyncio.CancelledError) for error in errors)


async def test_a_connection_that_ends_at_the_moment_of_its_use_is_no_fault_of_ours(database_url: str) -> None:
    """The driver of PostgreSQL, asked before it has taken note of the end, speaks of its own state only."""
    database = Database(make_url(database_url))
    said = InternalError(
        "SELECT 1", {}, RuntimeError("cannot switch to state 12; another operation (2) is in progress")
    )

    async def use() -> None:
        async with database.reading():
            raise said

    with pytest.raises(DatabaseUnavailable):
        await use()
    await database.close()
