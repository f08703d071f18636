"""What a measuring process says goes into the database: a complete block at once, the rest at most a second later."""

from __future__ import annotations

import asyncio
import json
import logging
import time

from ai_lab.benchmarks.events import (
    BlockMeasured,
    Event,
    Failed,
    PackedRecord,
    PackedSamples,
    RecordsMeasured,
    Reported,
    SamplesTaken,
    StateChanged,
    packed_json,
)
from ai_lab.benchmarks.job import StoredRun
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import BlockDone
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import Progress
from ai_lab.database import Database
from ai_lab.errors import DatabaseUnavailable

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_PAGE = 2000


class Recording:
    """The events of one run, on their way into the database; made by ``begin``.

    A database that cannot be used for a while loses nothing: what has come waits, and is written when it can be.

    Attributes:
        progress: the latest.
        last: the event that a job ends with, once it was said.
        is_lost: the run was taken over by another server process, which thought that this one is dead.
        cancel_wanted: somebody, perhaps by way of another server process, wants the run cancelled.
    """

    def __init__(self, database: Database, run: StoredRun, instance_id: str, sequences: tuple[int, int]) -> None:
        self.progress = Progress(phase="preparing")
        self.last: Reported | Failed | None = None
        self.is_lost = False
        self.cancel_wanted = False
        self._database = database
        self._run_id = run.run_id
        self._instance_id = instance_id
        self._next_record, self._next_sample = sequences
        self._state = dict(run.state)
        self._has_new_state = False
        self._records: list[PackedRecord] = []
        self._blocks: list[BlockDone] = []
        self._samples: list[PackedSamples] = []
        self._flushed_at = time.monotonic()

    @classmethod
    async def begin(cls, database: Database, run: StoredRun, instance_id: str) -> Recording:
        """Go on after what is stored of the run."""
        async with database.reading() as db:
            sequences = await BenchmarkRepository(db).next_sequences(run.run_id)
        return cls(database, run, instance_id, sequences)

    @property
    def is_due(self) -> bool:
        """Return whether there is something that should be written now."""
        return bool(self._blocks) or time.monotonic() - self._flushed_at >= _FLUSH_SECONDS

    def add(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case Progress(phase="analysing"):  # the counts stay those of the measuring
                self.progress = self.progress.model_copy(update={"phase": "analysing", "seconds_left": None})
            case Progress():
                self.progress = event
            case RecordsMeasured():
                self._records += event.records
            case BlockMeasured():
                self._blocks.append(event.block)
            case SamplesTaken():
                self._samples.append(event.samples)
            case StateChanged():
                self._state |= event.state
                self._has_new_state = True
            case Reported() | Failed():
                self.last = event
            case _:
                pass

    async def flush(self) -> bool:
        """Write what has come, in one transaction; returns whether that was possible."""
        self._flushed_at = time.monotonic()
        try:
            async with self._database.transaction() as db:
                wanted = await self._write(BenchmarkRepository(db))
        except DatabaseUnavailable as error:
            _log.warning("benchmark %s: what was measured waits to be stored: %s", self._run_id, error.detail)
            return False
        self.is_lost = wanted is None
        self.cancel_wanted = bool(wanted)
        self._next_record += len(self._records)
        self._next_sample += len(self._samples)
        self._records, self._blocks, self._samples = [], [], []
        self._has_new_state = False
        return True

    async def finish(self) -> None:
        """Write what is left, however long the database makes us wait."""
        while True:
            if await self.flush():
                return
            await asyncio.sleep(_FLUSH_SECONDS)

    async def _write(self, repository: BenchmarkRepository) -> bool | None:
        progress = json.loads(self.progress.model_dump_json())  # has null for what is no number
        wanted = await repository.beat(self._run_id, self._instance_id, progress)
        if wanted is None:
            return None
        if self._records:
            await repository.add_records(self._run_id, self._next_record, self._records)
        if self._blocks:
            await repository.add_blocks(self._run_id, self._blocks)
        if self._samples:
            await repository.add_samples(self._run_id, self._next_sample, self._samples)
        if self._has_new_state:
            await repository.put(self._run_id, "state", packed_json(self._state))
        return wanted


async def stored_run(database: Database, run_id: str, plan: Plan) -> StoredRun:
    """Return a run with everything that was measured of it."""
    async with database.reading() as db:  # one snapshot
        repository = BenchmarkRepository(db)
        run = StoredRun(run_id, plan, blocks=await repository.blocks(run_id), samples=await repository.samples(run_id))
        sequence = -1
        while rows := await repository.records_after(run_id, sequence, _PAGE):
            run.records += [one for _, one in rows]
            sequence = rows[-1][0]
        run.state = await repository.state(run_id)
    return run
