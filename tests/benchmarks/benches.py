"""Benchmarks over a database, as a server process has them, with the scripted process in place of the measuring one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.benchmarks.plan import Arm, Plan
from ai_lab.benchmarks.schemas import Progress
from ai_lab.benchmarks.service import Benchmarks
from ai_lab.database import Database, instances
from ai_lab.errors import DatabaseUnavailable
from ai_lab.providers import Providers
from ai_lab.settings import Settings

#: For what has nothing to do with the kind of database.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_worker.py")))


class HalfDeaf(Database):
    """A database whose answers to some commits are lost, as where a connection breaks then: the work is done.

    ``lost_answers`` are numbers of transactions, 0 the first after the process was registered.
    """

    def __init__(self, url: URL, lost_answers: Collection[int]) -> None:
        super().__init__(url)
        self._count = -1  # the process registers first
        self._lost_answers = lost_answers

    @asynccontextmanager
    async def transaction(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        number, self._count = self._count, self._count + 1
        async with super().transaction(durable=durable) as db:
            yield db
        if number in self._lost_answers:
            raise DatabaseUnavailable("The connection broke.")


@asynccontextmanager
async def opened(
    database_url: str, *, command: Sequence[str] | None = SCRIPTED, lost_answers: Collection[int] = ()
) -> AsyncIterator[Benchmarks]:
    """Open benchmarks as one server process of several, and end them in order. ``lost_answers``: see ``HalfDeaf``."""
    database = HalfDeaf(make_url(database_url), lost_answers)
    async with database.transaction() as db:
        instance_id = await instances.register(db)
    settings = Settings(ollama_host="http://127.0.0.1:9", data_dir=Path("/nowhere"))
    providers = Providers(settings)
    benchmarks = Benchmarks(settings, database, providers, instance_id, worker_command=command)
    try:
        yield benchmarks
    finally:
        await benchmarks.close()
        await providers.close()
        async with database.transaction() as db:
            await instances.unregister(db, instance_id)
        await database.close()


def plan(
    *, blocks: int = 4, url: str | None = None, key: str | None = None, title: str | None = None, **script: Any
) -> Plan:
    """Return a plan whose arm tells the scripted process what to do."""
    where: dict[str, Any] = {"model": "m", "url": url, "api_key": key} if url else {"model": "echo/echo"}
    return Plan(arms=[Arm(**where, options={"script": script})], blocks=blocks, title=title)


async def execute(benchmarks: Benchmarks, statement: str) -> list[Any]:
    """Run SQL of the test's own."""
    async with benchmarks._database.transaction() as db:
        result = await db.execute(text(statement))
        return list(result.all()) if result.returns_rows else []


async def until_measuring(benchmarks: Benchmarks, run_id: str) -> None:
    """Return as soon as something was measured."""
    async for event in benchmarks.events(run_id):
        if isinstance(event, Progress) and event.done:
            return
