"""All SQL about stored answers and their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.cache.tables import cache_counts, cached_answers
from ai_lab.database.rows import every, first, insert_into

_GENERATION = "generation"
_LISTED = (
    "key",
    "provider",
    "model",
    "question",
    "size_bytes",
    "hits",
    "semantic_hits",
    "created_at",
    "expires_at",
    "last_hit_at",
)
_columns = cached_answers.c


class AnswerRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def get(self, key: str, at: datetime) -> dict[str, Any] | None:
        """Return ``answer``, ``size_bytes`` and ``expires_at`` of what is not over at this moment."""
        statement = select(_columns.answer, _columns.size_bytes, _columns.expires_at)
        return first(await self._db.execute(statement.where(_columns.key == key, _columns.expires_at > at)))

    async def put(self, rows: Sequence[dict[str, Any]]) -> None:
        """Insert answers, or put them in the place of those under the same keys, whose hits go on counting."""
        fresh = insert_into(self._db, cached_answers)
        statement = fresh.on_conflict_do_update(
            index_elements=["key"],
            set_={
                name: fresh.excluded[name]
                for name in ("session_id", "answer", "size_bytes", "created_at", "expires_at")
            },
        )
        await self._db.execute(statement, list(rows))

    async def evict(self, key: str) -> bool:
        """Delete one answer and say whether there was one."""
        return (await self._db.execute(delete(cached_answers).where(_columns.key == key))).rowcount > 0

    async def forget(self, session_id: str) -> bool:
        """Delete the answers that were made for a conversation and say whether there were any."""
        return (await self._db.execute(delete(cached_answers).where(_columns.session_id == session_id))).rowcount > 0

    async def clear(self) -> int:
        """Delete all answers and return how many there were."""
        return (await self._db.execute(delete(cached_answers))).rowcount

    async def has_expired(self, at: datetime) -> bool:
        """Say whether anything is over."""
        statement = select(_columns.key).where(_columns.expires_at <= at).limit(1)
        return first(await self._db.execute(statement)) is not None

    async def delete_expired(self, at: datetime, most: int) -> int:
        """Delete at most so many that are over and return how many went."""
        over = select(_columns.key).where(_columns.expires_at <= at).limit(most)
        return (await self._db.execute(delete(cached_answers).where(_columns.key.in_(over)))).rowcount

    async def delete_oldest(self, at_least_bytes: int, most: int) -> int:
        """Delete those that would be over first, so many that ``at_least_bytes`` are free; at most ``most``."""
        soonest = select(_columns.key, _columns.size_bytes, _columns.expires_at).order_by(_columns.expires_at)
        candidates = soonest.limit(most).subquery()  # so few that no sum goes over the whole table
        order = (candidates.c.expires_at, candidates.c.key)
        before = func.sum(candidates.c.size_bytes).over(order_by=order) - candidates.c.size_bytes
        running = select(candidates.c.key, before.label("before")).subquery()
        oldest = select(running.c.key).where(running.c.before < at_least_bytes)
        return (await self._db.execute(delete(cached_answers).where(_columns.key.in_(oldest)))).rowcount

    async def total(self, at: datetime) -> tuple[int, int]:
        """Return how many are not over at this moment, and their bytes; read from an index alone."""
        statement = select(func.count(), func.sum(_columns.size_bytes)).where(_columns.expires_at > at)
        row = (await self._db.execute(statement)).one()
        return row[0], int(row[1] or 0)

    async def size_bytes(self) -> int:
        """Return the bytes of all, also of those that are over."""
        return int((await self._db.execute(select(func.sum(_columns.size_bytes)))).scalar() or 0)

    async def oldest_at(self, at: datetime) -> datetime | None:
        """Return when the oldest that is not over was stored."""
        statement = select(_columns.created_at).where(_columns.expires_at > at).order_by(_columns.expires_at).limit(1)
        moment: datetime | None = (await self._db.execute(statement)).scalar()
        return moment

    async def page(self, at: datetime, limit: int, before: tuple[datetime, str] | None) -> list[dict[str, Any]]:
        """Return answers that are not over, without their texts, the newest first."""
        statement = select(*(_columns[name] for name in _LISTED)).where(_columns.expires_at > at)
        if before:
            moment, key = before
            earlier = and_(_columns.created_at == moment, _columns.key < key)
            statement = statement.where(or_(_columns.created_at < moment, earlier))
        newest = statement.order_by(_columns.created_at.desc(), _columns.key.desc()).limit(limit)
        return every(await self._db.execute(newest))

    async def keys(self, after: str, limit: int) -> list[str]:
        """Return keys in their order, beginning after this one."""
        statement = select(_columns.key).where(_columns.key > after).order_by(_columns.key).limit(limit)
        return list((await self._db.execute(statement)).scalars())

    async def generation(self) -> int:
        """Return how often answers were deleted before their time."""
        statement = select(cache_counts.c.count).where(cache_counts.c.name == _GENERATION)
        return int((await self._db.execute(statement)).scalar() or 0)

    async def next_generation(self) -> None:
        """Tell all servers that answers were deleted."""
        await self.add_counts({_GENERATION: 1})

    async def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to the counts of these names."""
        fresh = insert_into(self._db, cache_counts)
        statement = fresh.on_conflict_do_update(
            index_elements=["name"], set_={"count": cache_counts.c.count + fresh.excluded.count}
        )
        # In one order, so that two servers never wait for each other.
        await self._db.execute(statement, [{"name": name, "count": counts[name]} for name in sorted(counts)])

    async def add_hits(self, hits: Mapping[str, tuple[int, int]], at: datetime) -> None:
        """Count hits, exact and semantic ones, of answers by key; those that are gone are left out."""
        statement = (
            update(cached_answers)
            .where(_columns.key == bindparam("of"))
            .values(
                hits=_columns.hits + bindparam("exact"),
                semantic_hits=_columns.semantic_hits + bindparam("alike"),
                last_hit_at=bindparam("at"),
            )
        )
        rows = [{"of": key, "exact": hits[key][0], "alike": hits[key][1], "at": at} for key in sorted(hits)]
        await self._db.execute(statement, rows)

    async def counts(self) -> dict[str, int]:
        """Return all counts by name."""
        rows = await self._db.execute(select(cache_counts.c.name, cache_counts.c.count))
        return {name: count for name, count in rows if name != _GENERATION}
