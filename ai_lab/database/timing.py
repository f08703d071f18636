"""How long the database takes: statements by class, whole units of work, and the wait of writers for each other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError

from ai_lab.errors import DatabaseUnavailable

#: Gets what was done, its seconds, and whether it failed. What was done: select, insert, update, delete or other for a
#: statement; transaction or read for a unit of work; write_wait for a writer's wait for its turn.
Observe = Callable[[str, float, bool], None]

_CLASSES = {word: word.lower() for word in ("SELECT", "INSERT", "UPDATE", "DELETE")}
_STARTED = "ai_lab_statement_started"


def time_statements(engine: Engine, observe: Observe) -> None:
    """Tell ``observe`` of every statement that the engine runs."""

    @event.listens_for(engine, "before_cursor_execute")
    def _started(connection: Connection, *_: Any) -> None:
        connection.info[_STARTED] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def _ended(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        observe(_class_of(statement), _since_start(connection), False)

    @event.listens_for(engine, "handle_error")
    def _failed(context: ExceptionContext) -> None:
        if context.statement is not None and context.connection is not None and not context.is_pre_ping:
            observe(_class_of(context.statement), _since_start(context.connection), True)


@asynccontextmanager
async def timed(observe: Observe | None, unit: str) -> AsyncIterator[None]:
    """Tell ``observe`` how long the block took, and whether the database was what failed in it."""
    started, failed = time.perf_counter(), False
    try:
        yield
    except (DatabaseUnavailable, DBAPIError, TimeoutError):
        failed = True
        raise
    finally:
        if observe:
            observe(unit, time.perf_counter() - started, failed)


def _since_start(connection: Connection) -> float:
    """Return the seconds since the statement started; 0 for one that failed before it did."""
    ended = time.perf_counter()
    started: float = connection.info.pop(_STARTED, ended)
    return ended - started


def _class_of(statement: str) -> str:
    return _CLASSES.get(statement[:6].upper(), "other")
