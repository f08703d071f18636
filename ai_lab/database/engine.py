"""The unit of work on SQLite and Postgres.

SQLite's defaults lose updates without a word: a transaction starts as a reader and is upgraded at its first write,
where two of them overwrite each other or fail at once. So writes here start with BEGIN IMMEDIATE on one connection
behind a first-come-first-served lock, and reads have connections of their own that cannot write.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from ai_lab.database.sqlite_driver import Connection
from ai_lab.database.timing import Observe, time_statements, timed
from ai_lab.errors import Conflict, DatabaseBusy, DatabaseFull, DatabaseUnavailable, LabError

#: How long a request waits for the database before it is answered with 503.
WAIT_SECONDS = 5.0
_READERS = 4
_POSTGRES_SESSION = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",
    "timezone": "UTC",
}
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_PAGES_AT_ONCE = 256  # others may write in between


class Database:
    """Two engines, one for writing and one for reading (the same one on Postgres).

    Args:
        url: with the driver ``sqlite+aiosqlite`` or ``postgresql+asyncpg``.
        pooled: False opens a connection for each unit of work and closes it after, which makes the object usable
            from several event loops one after the other.
        observe: is told of every statement and unit of work, see ``ai_lab.database.timing``.
    """

    def __init__(self, url: URL, *, pooled: bool = True, observe: Observe | None = None) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._turn = asyncio.Lock()  # asyncio wakes waiters in the order in which they came
        if self.is_sqlite:
            self._writer = _sqlite_engine(url, writes=True, pooled=pooled)
            self._reader = _sqlite_engine(url, writes=False, pooled=pooled)
        else:
            self._writer = self._reader = _postgres_engine(url, pooled=pooled)
        self._observe = observe
        if observe:
            for engine in {self._writer, self._reader}:
                time_statements(engine.sync_engine, observe)

    @asynccontextmanager
    async def transaction(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open one read-write transaction; it commits at the end of the block and rolls back on an error.

        Never wait for a model or the network inside: on SQLite every other writer waits meanwhile.

        Args:
            durable: what was committed survives a power cut too, and not only the end of this process; on Postgres
                it always does.

        Raises:
            DatabaseBusy: no turn within ``WAIT_SECONDS``.
            DatabaseFull: the disk is full.
            DatabaseUnavailable: it cannot be reached.
        """
        if not self.is_sqlite:
            async with timed(self._observe, "transaction"), _translated(), self._writer.begin() as db:
                yield db
            return
        waited_from = time.monotonic()
        try:
            async with timed(self._observe, "write_wait"), asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise _busy() from None
        try:
            left = max(0.0, WAIT_SECONDS - (time.monotonic() - waited_from))
            async with timed(self._observe, "transaction"), _translated(), self._writer.connect() as db:
                # The time spent in the queue counts, so that a long lock by another process ends in an answer.
                info: dict[str, Any] = db.sync_connection.info  # type: ignore[union-attr]  # connected
                info["wait_ms"] = round(left, 1) * 1000
                info["synchronous"] = "FULL" if durable else "NORMAL"
                async with db.begin():
                    yield db
        finally:
            self._turn.release()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open one read-only snapshot. Raises as ``transaction`` does."""
        async with timed(self._observe, "read"), _translated(), self._reader.connect() as db, db.begin():
            yield db

    async def ping(self) -> str:
        """Return the revision that the tables have, read just now; raises ``DatabaseUnavailable`` where that fails."""
        async with self.reading() as db:
            return str((await db.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar())

    async def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the file and cut it; nothing to do on Postgres."""
        if self.is_sqlite:
            async with self._turn, _translated(), self._writer.connect() as db:
                connection = await db.execution_options(isolation_level="AUTOCOMMIT")
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    async def give_back_pages(self, keep: int = 512) -> int:
        """Cut free pages beyond ``keep`` off SQLite's file, and return how many went (Postgres tidies by itself).

        What is kept is used again by the next rows. A file that was created without ``auto_vacuum`` never shrinks:
        only a VACUUM could, which needs the room of a second copy and stops everybody meanwhile.
        """
        if not self.is_sqlite:
            return 0
        first: int | None = None
        free: int | None = None
        while True:
            async with self._turn, _translated(), self._writer.connect() as db:
                connection = await db.execution_options(isolation_level="AUTOCOMMIT")
                before, free = free, int((await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one())
                first = free if first is None else first
                if free <= keep or free == before:  # the second: this file does not shrink
                    return first - free
                driver = (await connection.get_raw_connection()).driver_connection
                # A script, because a single statement of the driver would stop after the first page.
                pages = min(free - keep, _PAGES_AT_ONCE)
                await driver.executescript(f"PRAGMA incremental_vacuum({pages})")  # type: ignore[union-attr]  # connected

    async def size_bytes(self) -> dict[str, int]:
        """Return the size of the database (``db``) and, of SQLite, of its write-ahead log (``wal``)."""
        if not self.is_sqlite:
            async with self.reading() as db:
                size = await db.exec_driver_sql("SELECT pg_database_size(current_database())")
                return {"db": int(size.scalar_one())}
        file = Path(self.url.database or "")
        sizes = {}
        for name, path in {"db": file, "wal": file.with_name(f"{file.name}-wal")}.items():
            with suppress(FileNotFoundError):  # the log comes and goes
                sizes[name] = path.stat().st_size
        return sizes

    def connections_in_use(self) -> int:
        """Return how many pooled connections are out at this moment."""
        engines = {id(engine): engine for engine in (self._writer, self._reader)}
        return sum(getattr(engine.pool, "checkedout", int)() for engine in engines.values())

    async def close(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


def _sqlite_engine(url: URL, *, writes: bool, pooled: bool) -> AsyncEngine:
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        pool = {"pool_size": 1 if writes else _READERS, "max_overflow": 0, "pool_timeout": WAIT_SECONDS}
    connect_args = {"timeout": WAIT_SECONDS, "async_creator_fn": Connection}
    engine = create_async_engine(url, hide_parameters=True, connect_args=connect_args, **pool)

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # transactions start where we say so, in the hook below
        cursor = dbapi_connection.cursor()
        for pragma in (
            # Says something only before the first page is written: a new file can give room back to the disk. One that
            # is there already stays as it is and uses its free pages again.
            *(("auto_vacuum = INCREMENTAL",) if writes else ()),
            "journal_mode = WAL" if writes else "query_only = ON",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            f"journal_size_limit = {_WAL_LIMIT_BYTES}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return  # a checkpoint cannot run inside a transaction
        driver: Connection = connection.connection.driver_connection
        if writes:
            driver.run_first(
                f"PRAGMA busy_timeout = {connection.info['wait_ms']:.0f}",
                f"PRAGMA synchronous = {connection.info['synchronous']}",
                "BEGIN IMMEDIATE",
            )
        else:
            driver.run_first("BEGIN")

    return engine


def _postgres_engine(url: URL, *, pooled: bool) -> AsyncEngine:
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        pool = {"pool_size": 8, "max_overflow": 8, "pool_timeout": WAIT_SECONDS}
        pool |= {"pool_pre_ping": True, "pool_recycle": 1800}
    engine = create_async_engine(
        url,
        hide_parameters=True,
        connect_args={
            "timeout": WAIT_SECONDS,
            "command_timeout": 30,
            # Behind PgBouncer many clients share a server connection: names must never meet.
            "prepared_statement_name_func": lambda: f"__ai_lab_{uuid.uuid4().hex}__",
        },
        **pool,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(dbapi_connection: Any, _record: Any) -> None:
        # Not start-up parameters: PgBouncer refuses those it does not know.
        cursor = dbapi_connection.cursor()
        cursor.execute("SELECT " + ", ".join(f"set_config('{k}', '{v}', false)" for k, v in _POSTGRES_SESSION.items()))
        cursor.close()
        dbapi_connection.commit()

    return engine


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Turn the drivers' errors into ours; anything that is a fault of a statement passes through."""
    try:
        yield
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error
    except (PoolTimeout, OSError, TimeoutError) as error:
        raise DatabaseUnavailable(
            "The database did not answer in time. What was acknowledged is safe; try again.", retry_after_seconds=5
        ) from error


def _translate(error: DBAPIError) -> LabError | None:
    if isinstance(error, IntegrityError):  # two equal keys at the same instant; the second finds the first one's work
        return Conflict("The same was being saved at this moment. Send the request again.", retry_after_seconds=1)
    text = str(error.orig).lower()
    if "invalid input for query argument" in text:  # a fault of ours, and what follows is what somebody said
        return None
    if "locked" in text or "lock timeout" in text or "deadlock" in text:
        return _busy()
    if "disk is full" in text or "no space left" in text or "could not extend file" in text:
        return DatabaseFull("The disk with the database is full. Free some space; nothing of this request was saved.")
    unreachable = (
        "connection",
        "too many clients",
        "disk i/o",
        "unable to open",
        "shutting down",
        "starting up",
        "timeout",
        "readonly",
        "read-only",
        "recovery",
        "cannot switch to state",  # asyncpg, whose connection was ended just before it was to be used
    )
    if error.connection_invalidated or any(sign in text for sign in unreachable):
        return DatabaseUnavailable(
            "The database cannot be used at the moment. What was acknowledged is safe; try again.",
            retry_after_seconds=5,
        )
    return None


def _busy() -> DatabaseBusy:
    return DatabaseBusy(
        f"Another program held the database for more than {WAIT_SECONDS:g} s. Try again in a moment.",
        retry_after_seconds=5,
    )
