"""Which server processes are alive, so that what a dead one left unfinished can be closed by another.

Every process that writes answers has a row here and renews it. A row is dead when its process is gone from this
machine, or when a process of another machine has not renewed it for ``STALE_SECONDS``.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import psutil
from sqlalchemy import Column, Float, Integer, Row, String, Table, delete, insert, select, update
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
    await db.execute(insert(server_instances).values(_row(instance_id)))
    return instance_id


def _row(instance_id: str) -> dict[str, Any]:
    return {
        "id": instance_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "renewed_at": now(),
    }


async def renew(db: AsyncConnection, instance_id: str) -> None:
    """Say that this process is alive, also where another one had given it up."""
    mine = update(server_instances).where(server_instances.c.id == instance_id).values(renewed_at=now())
    if not (await db.execute(mine)).rowcount:
        await db.execute(insert(server_instances).values(_row(instance_id)))


async def is_first_on_host(db: AsyncConnection, own_id: str) -> bool:
    """Return whether this process is the oldest of its machine; of several, one alone does what needs doing once."""
    mine = select(server_instances.c.id).where(server_instances.c.host == socket.gethostname())
    oldest = (await db.execute(mine.order_by(server_instances.c.id).limit(1))).scalar()
    return oldest is None or oldest == own_id


async def unregister(db: AsyncConnection, instance_id: str) -> None:
    """Remove this process in an orderly stop."""
    await db.execute(delete(server_instances).where(server_instances.c.id == instance_id))


async def forget_dead(db: AsyncConnection, own_id: str) -> None:
    """Remove the rows of processes that are gone."""
    others = (await db.execute(select(server_instances).where(server_instances.c.id != own_id))).all()
    dead = [row.id for row in others if _is_dead(row)]
    if dead:
        await db.execute(delete(server_instances).where(server_instances.c.id.in_(dead)))


def _is_dead(row: Row[Any]) -> bool:
    stale: bool = row.renewed_at < now() - timedelta(seconds=STALE_SECONDS)
    if row.host != socket.gethostname():
        return stale
    if row.pid == os.getpid():  # this process has the number now: in a container it is the same one each time
        return bool(row.process_started != psutil.Process().create_time()) or stale
    try:
        process = psutil.Process(row.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # A clock that is set moves the start times of all processes: a difference alone proves nothing.
        return bool(abs(process.create_time() - row.process_started) >= 1.0) and stale
    except psutil.Error:
        return True
