"""aiosqlite with one trip to its thread for a statement instead of four, and none for the start of a transaction.

A trip takes longer than most statements. On a busy event loop each one waits for its turn, and everybody who wants to
write waits for the one who does: 32 writers and 32 readers get their answers several times sooner this way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import aiosqlite
from aiosqlite.context import contextmanager

_ROWS_AT_ONCE = 256


class Connection(aiosqlite.Connection):
    """A connection whose cursors bring their first rows along with the statement; it opens when it is awaited."""

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(lambda: sqlite3.connect(database, **options), _ROWS_AT_ONCE)
        self._thread.daemon = True  # one that nobody closed must not keep the program alive
        self._first: tuple[str, ...] = ()
        self._ended = True

    def run_first(self, *statements: str) -> None:
        """Run these right before the next statement, in the same trip."""
        self._first = statements

    def begin_statement(self) -> tuple[str, ...]:
        """Return what is to be run before the statement that begins now."""
        first, self._first, self._ended = self._first, (), False
        return first

    @contextmanager
    async def cursor(self) -> aiosqlite.Cursor:
        """Return a cursor; making one needs no trip."""
        return _Cursor(self, self._conn.cursor())

    async def commit(self) -> None:
        """Commit; where no statement was begun there is nothing to do."""
        self._first = ()
        if not self._ended:
            await super().commit()
            self._ended = True

    async def rollback(self) -> None:
        """Roll back; where no statement was begun there is nothing to do."""
        self._first = ()
        if not self._ended:
            await super().rollback()
            self._ended = True

    async def close(self) -> None:
        """Roll back and close.

        A cursor that somebody still holds, such as the traceback of a task that was cancelled in mid-statement, keeps
        SQLite's connection alive after it was closed, and without the rollback its locks too.
        """
        if self._connection is not None:
            await self._execute(self._conn.rollback)  # type: ignore[no-untyped-call]
        await super().close()

    def stop(self) -> asyncio.Future[Any] | None:
        """Roll back and close without waiting for it."""
        if self._connection is not None:
            self._tx.put_nowait((None, self._connection.rollback))
        return super().stop()


class _Cursor(aiosqlite.Cursor):
    _conn: Connection
    _rows: list[Any]
    _has_more: bool

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> aiosqlite.Cursor:
        """Run a statement and get its first rows."""
        self._rows = await self._in_thread(self._run, self._conn.begin_statement(), sql, parameters or ())
        self._has_more = len(self._rows) == _ROWS_AT_ONCE
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> aiosqlite.Cursor:
        """Run a statement once for each set of parameters."""
        await self._in_thread(self._run_many, self._conn.begin_statement(), sql, parameters)
        return self

    async def fetchmany(self, size: int | None = None) -> Iterable[sqlite3.Row]:
        """Return up to ``size`` of the next rows."""
        if not self._rows and self._has_more:
            return await super().fetchmany(size)
        count = size or self.arraysize
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    async def fetchone(self) -> sqlite3.Row | None:
        """Return the next row."""
        return next(iter(await self.fetchmany(1)), None)

    async def fetchall(self) -> Iterable[sqlite3.Row]:
        """Return all rows that are left."""
        rows, self._rows = self._rows, []
        return [*rows, *await super().fetchall()] if self._has_more else rows

    async def close(self) -> None:
        """Close it after what is under way, without waiting for that."""
        self._conn._tx.put_nowait((None, self._cursor.close))  # noqa: SLF001 - the queue of the connection's thread

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self._execute(function, *arguments)  # type: ignore[no-untyped-call]

    def _run(self, first: tuple[str, ...], sql: str, parameters: Any) -> list[Any]:
        self._run_first(first)
        self._cursor.execute(sql, parameters)
        return self._cursor.fetchmany(_ROWS_AT_ONCE) if self._cursor.description else []

    def _run_many(self, first: tuple[str, ...], sql: str, parameters: Any) -> None:
        self._run_first(first)
        self._cursor.executemany(sql, parameters)

    def _run_first(self, statements: tuple[str, ...]) -> None:
        for statement in statements:
            self._cursor.execute(statement)
