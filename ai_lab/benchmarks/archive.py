"""Benchmark runs as they are stored: one, many, their raw records, their reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ai_lab import cursor
from ai_lab.benchmarks.events import PackedRecord, SampleKind, unpacked_json
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.recording import stored_run
from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports import NEEDS_RECORDS, Rendered, ReportFormat, jsonl_line, render
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import ENDED, Progress, ReportBody, Run, RunPage
from ai_lab.database import Database
from ai_lab.errors import BenchmarkNotFound

_PAGE = 1000


class Archive:
    """What can be read of runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, run_id: str) -> Run:
        """Return a run, with its report once it has ended. Raises ``BenchmarkNotFound``."""
        async with self._database.reading() as db:
            repository = BenchmarkRepository(db)
            row = found(await repository.get(run_id), run_id)
            report = await repository.document(run_id, "report") if row["status"] in ENDED else None
        return await asyncio.to_thread(run_of, row, report)  # a plan may hold megabytes of prompts

    async def page(self, *, after: str | None = None, limit: int = 20) -> RunPage:
        """Return runs without reports, the newest first. Raises ``InvalidCursor``."""
        before = cursor.decode_moment(after)[1] if after else None
        async with self._database.reading() as db:
            rows = await BenchmarkRepository(db).page(before, limit + 1)
        runs = await asyncio.to_thread(lambda: [run_of(row) for row in rows[:limit]])
        has_more = len(rows) > limit
        return RunPage(data=runs, after=cursor.encode(runs[-1].created_at, runs[-1].id) if has_more else None)

    async def records(self, run_id: str) -> AsyncGenerator[Record, None]:
        """Yield every request in the order in which they ended, page by page. Raises ``BenchmarkNotFound``."""
        await self.get(run_id)
        async for page in self._pages(run_id):
            for packed in page:
                yield packed.unpack()

    async def jsonl(self, run_id: str) -> AsyncGenerator[bytes, None]:
        """Return the run with all that it was computed from, as JSON Lines, which come as they are asked for.

        Raises:
            BenchmarkNotFound: there is no such run.
        """
        return self._jsonl(await self.get(run_id))

    async def samples(self, run_id: str) -> list[tuple[SampleKind, list[Sample]]]:
        """Return what was seen of the machine, in order. Raises ``BenchmarkNotFound``."""
        async with self._database.reading() as db:
            repository = BenchmarkRepository(db)
            found(await repository.get(run_id), run_id)
            packed = await repository.samples(run_id)
        return [(one.kind, one.unpack()) for one in packed]

    async def report(self, run_id: str, fmt: ReportFormat) -> Rendered:
        """Return the report of a run in a format, in whatever state it is. Raises ``BenchmarkNotFound``."""
        run = await self.get(run_id)
        if fmt not in NEEDS_RECORDS:
            return await asyncio.to_thread(render, run, fmt)
        raw = await stored_run(self._database, run_id, run.plan)
        records = (one.unpack() for one in raw.records)  # one at a time: unpacked they take several times the memory
        samples = (sample for packed in raw.samples for sample in packed.unpack())
        return await asyncio.to_thread(render, run, fmt, records=records, samples=samples)

    async def _jsonl(self, run: Run) -> AsyncGenerator[bytes, None]:
        yield jsonl_line(run).encode()
        async for page in self._pages(run.id):
            yield await asyncio.to_thread(_lines, page)
        for _, samples in await self.samples(run.id):
            yield "".join(map(jsonl_line, samples)).encode()

    async def _pages(self, run_id: str) -> AsyncGenerator[list[PackedRecord], None]:
        sequence, is_last = -1, False
        while not is_last:
            async with self._database.reading() as db:
                rows = await BenchmarkRepository(db).records_after(run_id, sequence, _PAGE)
            yield [packed for _, packed in rows]
            is_last = len(rows) < _PAGE
            sequence = rows[-1][0] if rows else sequence


def _lines(page: list[PackedRecord]) -> bytes:
    return "".join(jsonl_line(packed.unpack()) for packed in page).encode()


def run_of(row: dict[str, Any], report: bytes | None = None) -> Run:
    """Return a row as a run."""
    return Run.model_validate(
        {
            **row,
            "plan": plan_of(row),
            "progress": Progress.model_validate(row["progress"]),
            "report": report_of(report) if report else None,
        }
    )


def plan_of(row: dict[str, Any]) -> Plan:
    """Return the plan of a row, without keys."""
    return Plan.model_validate(unpacked_json(row["plan"]))


def report_of(data: bytes) -> ReportBody:
    """Return a stored report."""
    return ReportBody.model_validate(unpacked_json(data))


def found(row: dict[str, Any] | None, run_id: str) -> dict[str, Any]:
    """Return the row. Raises ``BenchmarkNotFound`` where there is none."""
    if row is None:
        raise BenchmarkNotFound(f"There is no benchmark {run_id!r}. GET /benchmarks lists them.", param="run_id")
    return row
