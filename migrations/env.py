"""Alembic's entry: one chain of migrations for SQLite and Postgres.

``ai_lab.database.setup`` passes an open connection in; the ``alembic`` command of a developer makes its own.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from ai_lab.agents import tables as _agents
from ai_lab.benchmarks import tables as _benchmarks
from ai_lab.cache import tables as _cache
from ai_lab.conversations import tables as _conversations
from ai_lab.costs import tables as _costs
from ai_lab.database import Database, database_address, instances, metadata
from ai_lab.gateway import tables as _gateway
from ai_lab.importer import tables as _importer
from ai_lab.rate_limits import tables as _rate_limits
from ai_lab.settings import Settings
from ai_lab.telemetry import tables as _telemetry
from ai_lab.traces import tables as _traces
from ai_lab.vault import tables as _vault

_BY_HAND = {"ix_messages_unfinished", "ix_messages_search", "search", "ix_vault_keys_current"}
# Importing them fills the metadata.
_DECLARED = (
    _agents,
    _benchmarks,
    _cache,
    _conversations,
    _costs,
    _gateway,
    _importer,
    _rate_limits,
    _telemetry,
    _traces,
    _vault,
    instances,
)


def _is_declared(name: str | None, kind: str, _parents: object) -> bool:
    """Leave out what the migrations make by hand: the search index and partial indexes."""
    if kind == "table":
        return name in metadata.tables
    return name not in _BY_HAND


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,  # our SQLite transactions are real ones, so a killed upgrade leaves nothing behind
        include_name=_is_declared,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _run_by_itself() -> None:
    database = Database(database_address(Settings.load()), pooled=False)
    async with database.transaction() as db:
        await db.run_sync(_run)


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(_run_by_itself())
else:
    _run(given)
