"""What a comparison of stored runs is made of: their reports, and those of the runs that asked the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ai_lab.benchmarks.archive import found, plan_of, report_of
from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import ENDED
from ai_lab.database import Database
from ai_lab.errors import InvalidRequest

_SIBLINGS = 20
_FEWEST = 2


async def comparison_job(database: Database, run_ids: Sequence[str]) -> Job:
    """Return the job that compares stored runs with the first of them.

    Raises:
        BenchmarkNotFound: there is no such run.
        InvalidRequest: there are less than two, or one has no figures.
    """
    if len(run_ids) < _FEWEST or len(set(run_ids)) < len(run_ids):
        raise InvalidRequest("Name two or more different runs; the first is what the others are compared with.")
    async with database.reading() as db:
        rows = [found(await BenchmarkRepository(db).get(run_id), run_id) for run_id in run_ids]
    runs = [await _with_report(database, row) for row in rows]
    siblings = []
    for identity, count in Counter(row["identity"] for row in rows).items():
        # Where equal runs are compared, whether they differ is the question, and no part of the noise.
        compared_too = run_ids if count > 1 else ()
        async with database.reading() as db:
            equal = await BenchmarkRepository(db).reports_like(identity, _SIBLINGS, leave_out=compared_too)
        siblings.append([await asyncio.to_thread(report_of, one) for one in equal])
    return Job("compare", runs[0], others=runs[1:], siblings=siblings)


async def _with_report(database: Database, row: dict[str, Any]) -> StoredRun:
    async with database.reading() as db:
        report = await BenchmarkRepository(db).document(row["id"], "report")
    if row["status"] not in ENDED or report is None:
        raise InvalidRequest(f"Run {row['id']!r} has no figures ({row['status']}). Wait for it, or leave it out.")
    return StoredRun(row["id"], plan_of(row), report=await asyncio.to_thread(report_of, report))
