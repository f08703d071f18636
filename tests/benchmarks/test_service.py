"""Runs as they are asked for, stored, watched, listed and deleted, on both databases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ai_lab.benchmarks.plan import Arm, Plan
from ai_lab.benchmarks.schemas import Progress, Run
from ai_lab.benchmarks.service import Benchmarks
from ai_lab.errors import (
    BenchmarkNotFound,
    BenchmarkRunning,
    IdempotencyKeyReused,
    InvalidCursor,
    InvalidRequest,
    ModelNotFound,
)
from tests.benchmarks.benches import ON_SQLITE, execute, opened, plan, until_measuring

ELSEWHERE = "http://198.51.100.7:8000/v1"


async def test_everything_that_was_measured_is_stored(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(title="first"))
        assert (run.status, run.progress.phase, run.title, run.kind) == ("queued", "queued", "first", "run")

        ended = await benchmarks.wait(run.id)

        assert (ended.status, ended.grade, ended.error) == ("complete", "VALID", None)
        assert ended.report
        assert ended.report.provenance["counts"]["ok"] == 12
        assert ended.started_at
        assert ended.ended_at
        assert ended.started_at >= ended.created_at
        assert (ended.progress.phase, ended.progress.done, ended.progress.blocks_done) == ("analysing", 12, 4)
        records = [record async for record in benchmarks.records(run.id)]
        assert [(one.index, one.block) for one in records] == [(i, i // 3) for i in range(12)]
        ((kind, (sample,)),) = await benchmarks.samples(run.id)
        assert (kind, sample.cpu_percent, sample.other_top) == ("idle_before", 2.5, [("x", 1.0)])
        assert await execute(benchmarks, "SELECT count(*) FROM benchmark_blocks") == [(4,)]
        assert await execute(benchmarks, "SELECT count(*) FROM benchmark_leases") == [(0,)]
        for fmt in ("json", "jsonl", "csv", "markdown", "html", "benchstat"):
            assert (await benchmarks.report(run.id, fmt)).content


@ON_SQLITE
async def test_the_progress_ends_with_the_run_for_everybody_who_watches(database_url: str) -> None:
    async with opened(database_url) as here, opened(database_url) as elsewhere:
        run = await here.start(plan(block_seconds=0.4))
        for seen in await asyncio.gather(*(_watched(one, run.id) for one in (here, here, elsewhere))):
            assert isinstance(seen[-1], Run)
            assert seen[-1].status == "complete"
            done = [one.done for one in seen[:-1] if isinstance(one, Progress)]
            assert done == sorted(done)
            assert any(0 < count < 12 for count in done)
        assert len(await _watched(here, run.id)) == 1  # ended long ago


async def _watched(benchmarks: Benchmarks, run_id: str) -> list[Progress | Run]:
    return [event async for event in benchmarks.events(run_id)]


@ON_SQLITE
async def test_an_unknown_model_is_refused_with_near_names_and_nothing_is_stored(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        with pytest.raises(ModelNotFound) as caught:
            await benchmarks.start(Plan(arms=[Arm(model="echo/ecco")]))
        assert caught.value.near_matches == ["echo/echo"]
        assert (await benchmarks.page()).data == []


async def test_what_cannot_be_an_id_is_the_id_of_nothing(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        with pytest.raises(BenchmarkNotFound):
            await benchmarks.get("nul \x00")
        with pytest.raises(BenchmarkNotFound):
            await benchmarks.delete("nul \x00")


async def test_the_same_key_asks_for_the_same_run(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        runs = await asyncio.gather(*(benchmarks.start(plan(), idempotency_key="k") for _ in range(5)))
        assert len({run.id for run in runs}) == 1
        await benchmarks.wait(runs[0].id)
        again = await benchmarks.start(plan(), idempotency_key="k")
        assert (again.id, again.status) == (runs[0].id, "complete")
        with pytest.raises(IdempotencyKeyReused):
            await benchmarks.start(plan(blocks=5), idempotency_key="k")
        assert len((await benchmarks.page()).data) == 1


async def test_pages_have_the_newest_first_and_no_reports(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        ids = []
        for number in range(3):
            ids.append((await benchmarks.start(plan(title=f"run {number}", blocks=1))).id)
            await asyncio.sleep(0.002)  # ids of one millisecond have no order
        await benchmarks.wait(ids[-1])
        seen: list[Run] = []
        after = None
        while True:
            page = await benchmarks.page(after=after, limit=1)
            seen += page.data
            if (after := page.after) is None:
                break
        assert [run.id for run in seen] == ids[::-1]
        assert all(run.report is None for run in seen)
        assert {run.grade for run in seen} == {"VALID"}
        with pytest.raises(InvalidCursor):
            await benchmarks.page(after="nonsense")


@ON_SQLITE
async def test_no_key_is_stored_and_a_rerun_wants_it_again(database_url: str, tmp_path: Path) -> None:
    secret = "sk-very-secret-0815"
    async with opened(database_url) as benchmarks:
        first = await benchmarks.wait((await benchmarks.start(plan(url=ELSEWHERE, key=secret))).id)
        assert first.report
        assert first.report.provenance["counts"]["ok"] == 12
        assert (await execute(benchmarks, "SELECT keyed_arms FROM benchmark_runs"))[0][0] is not None
        assert first.plan.arms[0].api_key is None

        with pytest.raises(InvalidRequest, match="'m' had an API key, which is never stored"):
            await benchmarks.rerun(first.id)
        with pytest.raises(InvalidRequest, match="'other' had no API key"):
            await benchmarks.rerun(first.id, api_keys={"m": secret, "other": "x"})
        again = await benchmarks.wait((await benchmarks.rerun(first.id, api_keys={"m": secret})).id)

        assert (again.status, again.rerun_of, again.plan) == ("complete", first.id, first.plan)
        assert again.id != first.id
    if database_url.startswith("sqlite"):
        for file in (tmp_path / "database").iterdir():
            assert secret.encode() not in file.read_bytes()


async def test_a_run_is_deleted_with_all_that_it_measured(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(blocks=50, block_seconds=0.3))
        await until_measuring(benchmarks, run.id)
        with pytest.raises(BenchmarkRunning, match="Cancel it first"):
            await benchmarks.delete(run.id)
        await benchmarks.cancel(run.id)
        await benchmarks.wait(run.id)

        await benchmarks.delete(run.id)

        with pytest.raises(BenchmarkNotFound):
            await benchmarks.get(run.id)
        with pytest.raises(BenchmarkNotFound):
            await benchmarks.delete(run.id)
        for table in ("runs", "documents", "blocks", "requests", "samples", "leases"):
            assert await execute(benchmarks, f"SELECT count(*) FROM benchmark_{table}") == [(0,)]  # noqa: S608 - ours


@ON_SQLITE
async def test_stored_runs_are_compared_with_what_equal_runs_differ_in(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        runs = [await benchmarks.start(plan(blocks=1, title=str(number))) for number in range(3)]
        other = await benchmarks.start(plan(blocks=2))
        await asyncio.gather(*(benchmarks.wait(run.id) for run in [*runs, other]))

        (comparison,) = await benchmarks.compare([runs[0].id, other.id])

        assert (comparison.baseline, comparison.arm) == (runs[0].id, other.id)
        assert comparison.n_blocks == 4  # three runs that are equal but for their titles, and one of another kind
        (equal,) = await benchmarks.compare([runs[0].id, runs[1].id])
        assert equal.n_blocks == 1  # the third: whether the other two differ is the question, and no part of the noise
        with pytest.raises(InvalidRequest, match="two or more different"):
            await benchmarks.compare([runs[0].id, runs[0].id])
        waiting = await benchmarks.start(plan(block_seconds=5))
        with pytest.raises(InvalidRequest, match="has no figures"):
            await benchmarks.compare([runs[0].id, waiting.id])
