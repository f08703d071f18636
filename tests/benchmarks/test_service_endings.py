"""Every way in which a run ends early, and how it goes on: nothing that was measured is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.process import WorkerProcess
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import Progress, Run
from ai_lab.benchmarks.service import Benchmarks
from ai_lab.errors import BenchmarkNotResumable, BenchmarkRunning, DatabaseUnavailable, InvalidRequest, ServerStopping
from tests.benchmarks.benches import ON_POSTGRES, ON_SQLITE, SCRIPTED, execute, opened, plan, until_measuring

ELSEWHERE = "http://198.51.100.7:8000/v1"


async def test_a_cancelled_run_keeps_and_analyses_what_was_measured(database_url: str) -> None:
    async with opened(database_url) as here, opened(database_url) as elsewhere:
        for canceller in (here, elsewhere):
            run = await here.start(plan(blocks=50, block_seconds=0.3))
            await until_measuring(here, run.id)
            await canceller.cancel(run.id)
            ended = await here.wait(run.id)
            assert (ended.status, ended.error) == ("cancelled", None)
            assert ended.report
            measured = [record async for record in here.records(run.id)]
            assert len(measured) == ended.report.provenance["counts"]["ok"] > 0
            assert (await here.cancel(run.id)).status == "cancelled"


async def test_a_run_that_waits_is_cancelled_at_once(database_url: str) -> None:
    async with opened(database_url) as here, opened(database_url) as elsewhere:
        first = await here.start(plan(blocks=50, block_seconds=0.3))
        second, third = await here.start(plan()), await here.start(plan())
        watching = asyncio.create_task(here.wait(second.id))
        await asyncio.sleep(0.1)
        assert (await elsewhere.cancel(second.id)).status == "cancelled"
        assert (await watching).report is None
        await here.cancel(first.id)
        assert (await here.wait(third.id)).status == "complete"


async def test_a_process_that_dies_fails_the_run_and_loses_nothing(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(die_in_block=2, say="what a day"))
        failed = await benchmarks.wait(run.id)
        assert (failed.status, failed.error_code) == ("failed", "benchmark_failed")
        assert failed.error
        assert "signal 9" in failed.error
        assert "what a day" in failed.error
        assert failed.report
        assert failed.report.provenance["counts"]["ok"] == 7

        resumed = await benchmarks.resume(run.id)

        assert resumed.status in {"queued", "running"}
        assert (resumed.resumed, resumed.error, resumed.report) == (1, None, None)
        with pytest.raises(BenchmarkRunning):
            await benchmarks.resume(run.id)
        ended = await benchmarks.wait(run.id)
        assert (ended.status, ended.error, ended.resumed) == ("complete", None, 1)
        assert ended.report
        assert ended.report.provenance["counts"]["ok"] == 12
        assert ended.report.provenance["blocks"] == 2  # those that were not repeated
        assert ended.report.provenance["state"]["attempt"] == 1  # what the first process remembered
        phases = Counter([record.phase async for record in benchmarks.records(run.id)])
        assert phases == {"measured": 12, "discarded": 1}
        with pytest.raises(BenchmarkNotResumable, match="Use rerun"):
            await benchmarks.resume(run.id)


@ON_SQLITE
async def test_an_error_that_ends_the_run_is_the_run_s_error(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.wait((await benchmarks.start(plan(fail_in_block=1))).id)
        assert (run.status, run.error, run.error_code) == ("failed", "The server is gone.", "provider_unavailable")
        assert run.report


@ON_SQLITE
async def test_a_run_whose_analysis_dies_too_keeps_its_records(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.wait((await benchmarks.start(plan(die_in_block=2, bad_analysis=True))).id)
        assert (run.status, run.report) == ("failed", None)
        assert len([record async for record in benchmarks.records(run.id)]) == 7
        assert b"failed" in (await benchmarks.report(run.id, "json")).content


@ON_SQLITE
async def test_a_program_that_cannot_be_started_fails_the_run(database_url: str) -> None:
    async with opened(database_url, command=["/no/such/program"]) as benchmarks:
        run = await benchmarks.wait((await benchmarks.start(plan())).id)
        assert (run.status, run.error_code) == ("failed", "benchmark_failed")
        assert "cannot be started" in (run.error or "")


async def test_targets_have_one_run_at_a_time_in_the_order_of_asking(database_url: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    async with opened(database_url) as here, opened(database_url) as elsewhere:
        runs: list[Run] = []
        for benchmarks in (here, elsewhere, here, elsewhere):
            runs.append(await benchmarks.start(plan(blocks=2, diary=str(diary))))
            await asyncio.sleep(0.002)  # ids of one millisecond have no order
        other = await here.start(plan(blocks=1, url=ELSEWHERE))  # waits for nobody
        assert (await here.wait(other.id)).status == "complete"
        assert (await here.get(runs[-1].id)).status == "queued"
        for run in runs:
            assert (await here.wait(run.id)).status == "complete"
    lines = [line.split()[:3] for line in diary.read_text().splitlines()]
    assert lines == [[what, "run", run.id] for run in runs for what in ("begin", "end")]


async def test_a_stopped_server_leaves_no_process_and_the_next_one_goes_on(database_url: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(blocks=5, block_seconds=0.3, diary=str(diary), child=True))
        behind = await benchmarks.start(plan(blocks=1))
        await _until_block(benchmarks, run.id, 2)
        pid = int(diary.read_text().split()[3])
        processes = [psutil.Process(pid), *psutil.Process(pid).children()]
        assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    assert len(diary.read_text().splitlines()) == 1  # it had not ended
    with pytest.raises(ServerStopping):
        await benchmarks.start(plan())

    async with opened(database_url) as benchmarks:
        waiting = await benchmarks.get(run.id)
        assert waiting.status == "queued"
        assert await benchmarks.adopt_orphans() == 2
        assert await benchmarks.adopt_orphans() == 0
        ended = await benchmarks.wait(run.id)
        assert (ended.status, ended.resumed) == ("complete", 1)
        assert ended.report
        assert ended.report.provenance["counts"]["ok"] == 15
        assert ended.report.provenance["blocks"] >= 2
        assert ((await benchmarks.wait(behind.id)).status, (await benchmarks.get(behind.id)).resumed) == ("complete", 0)


@ON_SQLITE
async def test_what_cannot_go_on_is_interrupted_with_its_report(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        keyed = await benchmarks.start(plan(blocks=50, block_seconds=0.3, url=ELSEWHERE, key="sk-1"))
        own = await benchmarks.start(plan(blocks=50, block_seconds=0.3))
        never = await benchmarks.start(plan(url=ELSEWHERE, key="sk-1"))
        await _until_block(benchmarks, keyed.id, 1)
        await _until_block(benchmarks, own.id, 1)
    async with opened(database_url) as benchmarks:
        await execute(benchmarks, f"UPDATE benchmark_runs SET resumed = 3, status = 'running' WHERE id = '{own.id}'")  # noqa: S608 - ours
        await benchmarks.adopt_orphans()
        first, second, third = [await benchmarks.wait(run.id) for run in (keyed, own, never)]
        assert [run.status for run in (first, second, third)] == ["interrupted"] * 3
        assert "API keys of m are never stored" in (first.error or "")
        assert "stopped 4 times" in (second.error or "")
        assert first.report
        assert second.report
        assert third.report is None
        with pytest.raises(InvalidRequest, match="Give it again"):
            await benchmarks.resume(keyed.id)
        assert (await benchmarks.resume(keyed.id, api_keys={"m": "sk-1"})).status in {"queued", "running"}


@ON_SQLITE
async def test_who_only_looks_leaves_orphans_alone_and_who_measures_takes_them_over(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(blocks=5, block_seconds=0.3))
        await _until_block(benchmarks, run.id, 1)
    for _ in range(5):  # more often than a run may take its server down
        async with opened(database_url) as looking:
            await looking.page()
            assert ((await looking.get(run.id)).status, (await looking.get(run.id)).resumed) == ("queued", 0)
    async with opened(database_url) as resuming:
        assert (await resuming.resume(run.id)).id == run.id
        assert (await resuming.wait(run.id)).status == "complete"

    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(blocks=5, block_seconds=0.3))
        await _until_block(benchmarks, run.id, 1)
    async with opened(database_url) as measuring:
        await measuring.wait((await measuring.start(plan(blocks=1))).id)
        assert ((await measuring.wait(run.id)).status, (await measuring.get(run.id)).resumed) == ("complete", 1)


@ON_SQLITE
async def test_a_run_of_another_machine_is_left_to_it_for_a_while(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(blocks=50, block_seconds=0.3))
        await _until_block(benchmarks, run.id, 1)
    async with opened(database_url) as benchmarks:
        await execute(benchmarks, "UPDATE benchmark_runs SET host = 'another'")
        assert await benchmarks.adopt_orphans() == 0
        await execute(benchmarks, "UPDATE benchmark_runs SET updated_at = '2020-01-01 00:00:00+00:00'")
        assert await benchmarks.adopt_orphans() == 1
        ended = await benchmarks.wait(run.id)
        assert (ended.status, ended.error) == ("interrupted", ended.error)
        assert "begun on another" in (ended.error or "")
        assert ended.report
        with pytest.raises(BenchmarkNotResumable, match="begun on another"):
            await benchmarks.resume(run.id)


async def test_a_server_that_was_thought_dead_gives_way_to_the_one_that_took_over(
    database_url: str, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    async with opened(database_url) as stalled, opened(database_url) as other:
        run = await stalled.start(plan(blocks=5, block_seconds=0.3, diary=str(diary)))
        await _until_block(stalled, run.id, 1)
        await execute(stalled, f"DELETE FROM server_instances WHERE id = '{stalled._instance_id}'")  # noqa: S608 - ours
        assert await other.adopt_orphans() == 1
        ended = await other.wait(run.id)
        assert (ended.status, ended.resumed) == ("complete", 1)
        indexes = Counter([r.index async for r in other.records(run.id) if r.phase == "measured"])
        assert indexes == Counter(range(15))
        assert not stalled._queue._executions
    ended_jobs = [line for line in diary.read_text().splitlines() if line.startswith("end")]
    assert len(ended_jobs) == 1


@ON_SQLITE
@pytest.mark.parametrize("lost", ["the storing", "the start", "the first records"])
async def test_what_was_stored_though_the_answer_was_lost_goes_on(database_url: str, lost: str) -> None:
    number = ["taking over", "the storing", "the start", "the first records"].index(lost)
    async with opened(database_url, lost_answers=[number]) as benchmarks:
        with suppress(DatabaseUnavailable):
            await benchmarks.start(plan(blocks=2))
        (run,) = (await benchmarks.page()).data
        if lost != "the first records":
            while benchmarks._queue.feeds:  # the starter finds that it is not queued any more  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert await benchmarks.adopt_orphans() == 0  # it may be on its way
            await execute(benchmarks, "UPDATE benchmark_runs SET updated_at = '2020-01-01 00:00:00+00:00'")
            assert await benchmarks.adopt_orphans() == 1
            assert await benchmarks.adopt_orphans() == 0
        ended = await benchmarks.wait(run.id)
        assert (ended.status, ended.error) == ("complete", None)
        assert [record.index async for record in benchmarks.records(run.id)] == list(range(6))
        assert await execute(benchmarks, "SELECT count(*) FROM benchmark_leases") == [(0,)]


@ON_POSTGRES
async def test_a_run_deleted_while_it_is_taken_holds_up_no_other(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        first = await benchmarks.start(plan(blocks=50, block_seconds=0.3))
        await until_measuring(benchmarks, first.id)
        deleted = await benchmarks.start(plan())
        await asyncio.sleep(0.002)  # ids of one millisecond have no order
        last = await benchmarks.start(plan(blocks=1))
        async with benchmarks._database.transaction() as db:
            assert await BenchmarkRepository(db).remove(deleted.id)
            await benchmarks.cancel(first.id)
            await benchmarks.wait(first.id)
            await asyncio.sleep(0.5)  # its lease waits for us
        assert (await benchmarks.wait(last.id)).status == "complete"


@pytest.mark.thorough
@ON_SQLITE
async def test_a_database_that_is_locked_for_long_loses_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(database_url) as benchmarks:
        run = await benchmarks.start(plan(blocks=20, block_seconds=0.3))
        await _until_block(benchmarks, run.id, 1)
        with closing(sqlite3.connect(make_url(database_url).database or "", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(7)
            assert "waits to be stored" in caplog.text
        ended = await benchmarks.wait(run.id)
        assert ended.status == "complete"
        assert [record.index async for record in benchmarks.records(run.id)] == list(range(60))


async def test_a_process_that_does_not_obey_is_ended_by_force(tmp_path: Path) -> None:
    job = Job("run", StoredRun("r", plan(blocks=500, ignore_cancel=True, child=True)))
    job.settings = {"models_dir": str(tmp_path)}
    async with WorkerProcess.started(job, SCRIPTED) as worker:
        children: list[psutil.Process] = []
        async for event in worker.events():
            if isinstance(event, Progress) and not children:
                children = psutil.Process(worker.pid).children(recursive=True)
                worker.cancel(grace_seconds=0.2)
        assert "signal 9" in await worker.last_words()
    assert len(children) == 1
    assert psutil.wait_procs(children, timeout=30)[1] == []


async def test_no_part_of_a_key_is_left_of_what_a_process_says() -> None:
    key = "sk-0123456789abcdef"
    says = f"import sys; sys.stdin.readline(); sys.stderr.write('x' * 990 + '{key}')"
    job = Job("run", StoredRun("r", plan(blocks=1)), addresses=[{"api_key": key}])
    async with WorkerProcess.started(job, (sys.executable, "-c", says)) as worker:
        words = await worker.last_words()
    assert "xxx" in words
    assert "sk-" not in words


async def test_a_cancelled_task_leaves_no_process(tmp_path: Path) -> None:
    async def run() -> None:
        job = Job("run", StoredRun("r", plan(blocks=500)), settings={"models_dir": str(tmp_path)})
        async with WorkerProcess.started(job, SCRIPTED) as worker:
            started.set_result(psutil.Process(worker.pid))
            async for _ in worker.events():
                pass

    started: asyncio.Future[psutil.Process] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run())
    process = await started
    task.cancel()
    await asyncio.wait({task})
    assert psutil.wait_procs([process], timeout=30)[1] == []


async def _until_block(benchmarks: Benchmarks, run_id: str, blocks: int) -> None:
    """Wait until so many blocks are stored."""
    while True:
        async with benchmarks._database.reading() as db:
            if len(await BenchmarkRepository(db).blocks(run_id)) >= blocks:
                return
        await asyncio.sleep(0.05)
