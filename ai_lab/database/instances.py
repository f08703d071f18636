"""Which server processes are alive, so that what a dead one left unfinished can be closed by another.

Every process that writes answers has a row here and renews it. A row is dead when its process is gone from this
machine, or when a process of another machine has not renewed it for ``STALE_SECONDS``.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import psutil
from sqlalchemy import Column, Float, Integer, String, Table, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.clock import new_id, now
from ai_lab.database.orm import UtcDateTime, metadata

STALE_SECONDS = 60.0

server_instances = Table(
    "server_instances",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Float, nullable=False),
    Column("renewed_at", UtcDateTime, nullable=False),
)


async def register(db: AsyncConnection) -> str:
    """Add a row for this process and return its id."""
    instance_id = new_id()
    row = {
        "id": instance_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "renewed_at": now(),
    }
    await db.execute(insert(server_instances).values(row))
    return instance_id


async def renew(db: AsyncConnection, instance_id: str) -> None:
    """Say that this process is alive."""
    await db.execute(update(server_instances).where(server_instances.c.id == instance_id).values(renewed_at=now()))


async def unregister(db: AsyncConnection, instance_id: str) -> None:
    """Remove this process in an orderly stop."""
    await db.execute(delete(server_instances).where(server_instances.c.id == instance_id))


async def dead_instances(db: AsyncConnection) -> list[str]:
    """Return the ids of processes that are gone."""
    stale_before = now() - timedelta(seconds=STALE_SECONDS)
    rows = (await db.execute(select(server_instances))).all()
    host = socket.gethostname()
    return [
        row.id
        for row in rows
        if (row.host == host and not _runs(row.pid, row.process_started))
        or (row.host != host and row.renewed_at < stale_before)
    ]


async def forget(db: AsyncConnection, instance_ids: list[str]) -> None:
    """Remove the rows of dead processes."""
    await db.execute(delete(server_instances).where(server_instances.c.id.in_(instance_ids)))


def _runs(pid: int, process_started: float) -> bool:
    """Return whether that very process runs: numbers are given again, in a container the same one each time."""
    try:
        return abs(psutil.Process(pid).create_time() - process_started) < 1.0
    except psutil.Error:
        return False
