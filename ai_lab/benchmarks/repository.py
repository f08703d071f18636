"""All SQL about benchmark runs."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.benchmarks.events import PackedRecord, PackedSamples, packed_json, unpacked_json
from ai_lab.benchmarks.records import BlockDone
from ai_lab.benchmarks.tables import (
    benchmark_blocks,
    benchmark_documents,
    benchmark_leases,
    benchmark_requests,
    benchmark_runs,
    benchmark_samples,
)
from ai_lab.clock import now
from ai_lab.database.instances import server_instances
from ai_lab.database.rows import every, first, insert_into

Document = Literal["plan", "state", "report"]
_OPEN = ("queued", "running")


class BenchmarkRepository:
    """Statements of one unit of work. Rows of runs have their plan, packed, beside the columns of the table."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    # -- runs ------------------------------------------------------------------------------------------------------

    async def create(self, values: Mapping[str, Any], plan: bytes) -> bool:
        """Insert a run; returns False when its Idempotency-Key is taken."""
        fresh = insert_into(self._db, benchmark_runs).values(values)
        statement = fresh.on_conflict_do_nothing(index_elements=["idempotency_key"]).returning(benchmark_runs.c.id)
        if (await self._db.execute(statement)).first() is None:
            return False
        await self.put(values["id"], "plan", plan)
        return True

    async def get(self, run_id: str) -> dict[str, Any] | None:
        """Return a run."""
        if not _is_id(run_id):
            return None
        return first(await self._db.execute(_runs().where(benchmark_runs.c.id == run_id)))

    async def by_idempotency_key(self, key: str) -> dict[str, Any] | None:
        """Return the run that was asked for with this key."""
        return first(await self._db.execute(_runs().where(benchmark_runs.c.idempotency_key == key)))

    async def page(self, before: str | None, limit: int) -> list[dict[str, Any]]:
        """Return up to ``limit`` runs that are older than ``before``, the newest first."""
        statement = _runs().order_by(benchmark_runs.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(benchmark_runs.c.id < before)
        return every(await self._db.execute(statement))

    async def change(
        self, run_id: str, values: Mapping[str, Any], *, only: Sequence[str] = _OPEN, instance_id: str | None = None
    ) -> bool:
        """Set columns of a run that has one of the states ``only`` and, if given, belongs to ``instance_id``."""
        statement = update(benchmark_runs).where(benchmark_runs.c.id == run_id, benchmark_runs.c.status.in_(only))
        if instance_id is not None:
            statement = statement.where(benchmark_runs.c.instance_id == instance_id)
        return bool((await self._db.execute(statement.values(updated_at=now(), **values))).rowcount)

    async def remove(self, run_id: str) -> bool:
        """Delete a run that is not being measured, with all that it measured; returns whether there was one."""
        if not _is_id(run_id):
            return False
        chosen = and_(benchmark_runs.c.id == run_id, benchmark_runs.c.status != "running")
        return bool((await self._db.execute(delete(benchmark_runs).where(chosen))).rowcount)

    async def put(self, run_id: str, kind: Document, data: bytes) -> None:
        """Save a document of a run in place of the one before."""
        fresh = insert_into(self._db, benchmark_documents).values(run_id=run_id, kind=kind, data=data)
        await self._db.execute(
            fresh.on_conflict_do_update(index_elements=["run_id", "kind"], set_={"data": fresh.excluded.data})
        )

    async def document(self, run_id: str, kind: Document) -> bytes | None:
        """Return a document of a run."""
        c = benchmark_documents.c
        data: bytes | None = (await self._db.execute(select(c.data).where(c.run_id == run_id, c.kind == kind))).scalar()
        return data

    async def state(self, run_id: str) -> dict[str, Any]:
        """Return what a measuring process has remembered of a run."""
        data = await self.document(run_id, "state")
        state: dict[str, Any] = unpacked_json(data) if data else {}
        return state

    async def reports_like(self, identity: str, limit: int, *, leave_out: Collection[str] = ()) -> list[bytes]:
        """Return the reports of the newest complete runs that asked the same of the same, the oldest of them first."""
        runs = benchmark_runs.c
        is_sound = and_(runs.identity == identity, runs.status == "complete", runs.grade != "INVALID")
        statement = select(benchmark_documents.c.data).join_from(benchmark_documents, benchmark_runs)
        statement = statement.where(is_sound, benchmark_documents.c.kind == "report", runs.id.not_in(list(leave_out)))
        rows = (await self._db.execute(statement.order_by(runs.id.desc()).limit(limit))).scalars().all()
        return list(reversed(rows))

    # -- the queue -------------------------------------------------------------------------------------------------

    async def take_next(self, ready: Container[str], instance_id: str, moment: datetime) -> str | None:
        """Start the next of the runs ``ready`` whose targets are free: lease these to it, and return its id.

        Runs start in the order in which they were asked for: one that waits for a target keeps it from later ones.
        """
        runs = benchmark_runs.c
        values = {"status": "running", "started_at": func.coalesce(runs.started_at, moment)}
        busy = set((await self._db.execute(select(benchmark_leases.c.target_key))).scalars())
        queued = select(runs.id, runs.target_keys).where(runs.status == "queued").order_by(runs.id)
        for row in (await self._db.execute(queued)).all():
            keys = set(row.target_keys)
            if row.id in ready and not keys & busy and await self._lease(row.id, keys):
                if await self.change(row.id, values, only=["queued"], instance_id=instance_id):
                    return str(row.id)
                await self.release(row.id)  # cancelled at this moment
            busy |= keys
        return None

    async def queued(self, instance_id: str) -> set[str]:
        """Return the ids of this process's runs that wait."""
        runs = benchmark_runs.c
        statement = select(runs.id).where(runs.status == "queued", runs.instance_id == instance_id)
        return set((await self._db.execute(statement)).scalars())

    async def release(self, run_id: str) -> None:
        """Give the targets of a run back."""
        await self._db.execute(delete(benchmark_leases).where(benchmark_leases.c.run_id == run_id))

    async def claim_orphans(self, instance_id: str, host: str, patience: timedelta) -> list[dict[str, Any]]:
        """Make runs that no living process measures or has in its queue this one's, without leases, and return them.

        One that was begun on another machine is left to that machine for as long as ``patience``.
        """
        runs = benchmark_runs.c
        alive = select(server_instances.c.id)
        is_ours = or_(runs.host == host, runs.started_at.is_(None), runs.updated_at < now() - patience)
        return await self._claim(instance_id, runs.instance_id != instance_id, runs.instance_id.not_in(alive), is_ours)

    async def claim_forgotten(self, instance_id: str, known: Collection[str], after: timedelta) -> list[dict[str, Any]]:
        """Return open runs of this process that it does not know of and that rest since ``after``, without leases."""
        runs = benchmark_runs.c
        is_forgotten = runs.id.not_in(list(known)), runs.updated_at < now() - after
        return await self._claim(instance_id, runs.instance_id == instance_id, *is_forgotten)

    async def _claim(self, instance_id: str, *conditions: ColumnElement[bool]) -> list[dict[str, Any]]:
        runs, claimed = benchmark_runs.c, []
        open_runs = _runs().where(runs.status.in_(_OPEN), *conditions).order_by(runs.id)
        for row in every(await self._db.execute(open_runs)):
            # Another process may claim it at the same moment: the second one to write finds the first one's name.
            if await self.change(row["id"], {"instance_id": instance_id}, instance_id=row["instance_id"]):
                await self.release(row["id"])
                claimed.append(row | {"instance_id": instance_id})
        return claimed

    async def _lease(self, run_id: str, keys: set[str]) -> bool:
        """Take all of the targets or none; on Postgres another process may take one at the same moment."""
        rows = [{"target_key": key, "run_id": run_id} for key in sorted(keys)]
        fresh = insert_into(self._db, benchmark_leases).values(rows)
        taken = fresh.on_conflict_do_nothing(index_elements=["target_key"]).returning(benchmark_leases.c.target_key)
        if len((await self._db.execute(taken)).all()) == len(rows):
            return True
        await self.release(run_id)
        return False

    # -- what is measured --------------------------------------------------------------------------------------------

    async def beat(self, run_id: str, instance_id: str, progress: Mapping[str, Any]) -> bool | None:
        """Save how far a run is; returns whether somebody wants it cancelled, None where it is not ours any more."""
        runs = benchmark_runs.c
        mine = and_(runs.id == run_id, runs.status == "running", runs.instance_id == instance_id)
        statement = (
            update(benchmark_runs)
            .where(mine)
            .values(progress=dict(progress), updated_at=now())
            .returning(runs.cancel_requested)
        )
        wanted: bool | None = (await self._db.execute(statement)).scalar()
        return wanted

    async def next_sequences(self, run_id: str) -> tuple[int, int]:
        """Return the next free numbers of requests and samples."""
        numbers = [
            (await self._db.execute(select(func.max(table.c.sequence)).where(table.c.run_id == run_id))).scalar()
            for table in (benchmark_requests, benchmark_samples)
        ]
        requests, samples = (0 if number is None else number + 1 for number in numbers)
        return requests, samples

    async def add_records(self, run_id: str, first_sequence: int, records: Sequence[PackedRecord]) -> None:
        """Insert requests; those that are there already stay, for a lost answer to a commit is written once more."""
        rows = [
            {"run_id": run_id, "sequence": sequence, "request_index": one.index, "block": one.block}
            | {"phase": one.phase, "status": one.status, "data": one.data}
            for sequence, one in enumerate(records, first_sequence)
        ]
        await self._insert_new(benchmark_requests, rows)

    async def add_blocks(self, run_id: str, blocks: Sequence[BlockDone]) -> None:
        """Insert complete blocks, as ``add_records`` does."""
        rows = [{"run_id": run_id, "block": one.block, "data": packed_json(asdict(one))} for one in blocks]
        await self._insert_new(benchmark_blocks, rows)

    async def add_samples(self, run_id: str, first_sequence: int, samples: Sequence[PackedSamples]) -> None:
        """Insert samples, as ``add_records`` does."""
        rows = [
            {"run_id": run_id, "sequence": sequence, "kind": one.kind, "data": one.data}
            for sequence, one in enumerate(samples, first_sequence)
        ]
        await self._insert_new(benchmark_samples, rows)

    async def _insert_new(self, table: Table, rows: list[dict[str, Any]]) -> None:
        await self._db.execute(insert_into(self._db, table).on_conflict_do_nothing(), rows)

    async def discard_unfinished(self, run_id: str) -> None:
        """Take what was measured of blocks that are not complete out of the figures: they are measured again."""
        c = benchmark_requests.c
        complete = select(benchmark_blocks.c.block).where(benchmark_blocks.c.run_id == run_id)
        unfinished = and_(c.run_id == run_id, c.phase == "measured", c.block.not_in(complete))
        await self._db.execute(update(benchmark_requests).where(unfinished).values(phase="discarded"))

    async def blocks(self, run_id: str) -> list[BlockDone]:
        """Return the complete blocks in order."""
        c = benchmark_blocks.c
        rows = await self._db.execute(select(c.data).where(c.run_id == run_id).order_by(c.block))
        return [BlockDone(**unpacked_json(data)) for data in rows.scalars()]

    async def records_after(self, run_id: str, sequence: int, limit: int) -> list[tuple[int, PackedRecord]]:
        """Return requests with their numbers, from the one after ``sequence``."""
        c = benchmark_requests.c
        statement = select(benchmark_requests).where(c.run_id == run_id, c.sequence > sequence)
        rows = (await self._db.execute(statement.order_by(c.sequence).limit(limit))).all()
        return [
            (row.sequence, PackedRecord(row.request_index, row.block, row.phase, row.status, row.data)) for row in rows
        ]

    async def samples(self, run_id: str) -> list[PackedSamples]:
        """Return all samples in order."""
        c = benchmark_samples.c
        rows = await self._db.execute(select(c.kind, c.data).where(c.run_id == run_id).order_by(c.sequence))
        return [PackedSamples(row.kind, row.data) for row in rows.all()]

    async def has_records(self, run_id: str) -> bool:
        """Return whether anything was measured."""
        c = benchmark_requests.c
        return (await self._db.execute(select(c.sequence).where(c.run_id == run_id).limit(1))).first() is not None


def _is_id(text: str) -> bool:
    """Return whether this can be an id; Postgres refuses to look for a text with NUL."""
    return text.isascii() and text.isprintable()


def _runs() -> Select[Any]:
    plan = benchmark_documents.c.data.label("plan")
    is_plan = and_(benchmark_documents.c.run_id == benchmark_runs.c.id, benchmark_documents.c.kind == "plan")
    return select(benchmark_runs, plan).join_from(benchmark_runs, benchmark_documents, is_plan)
