"""One run in this server process, from the moment its targets are free to its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ai_lab.benchmarks.events import Compared, Failed, Outcome, Reported, packed_json
from ai_lab.benchmarks.feed import Feed
from ai_lab.benchmarks.intake import Prepared, first_progress, storable
from ai_lab.benchmarks.job import Job, settings_for_child
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.process import WorkerProcess
from ai_lab.benchmarks.recording import Recording, stored_run
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import Comparison, Progress, ReportBody, RunStatus
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import BenchmarkFailed, DatabaseUnavailable, InvalidRequest, LabError
from ai_lab.settings import Settings

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_AGAIN_SECONDS = 1.0
_ANALYSIS_SECONDS = 600.0


@dataclass(frozen=True)
class Workplace:
    """What every execution needs: where to store, which server process this is, and what program measures."""

    settings: Settings
    database: Database
    instance_id: str
    observe: Callable[[str, str | None], None]
    command: Sequence[str] | None = None


class Execution:
    """Measures, analyses and ends a run; or ends one that cannot be gone on with. Each object does one of the two."""

    def __init__(self, place: Workplace, run_id: str, plan: Plan, feed: Feed) -> None:
        self._place = place
        self._run_id = run_id
        self._plan = plan
        self._feed = feed
        self._worker: WorkerProcess | None = None
        self._is_cancelled = False
        self._has_ended = False

    def cancel(self) -> None:
        """Stop asking; what was measured is analysed."""
        self._is_cancelled = True
        if self._worker:
            self._worker.cancel()

    async def measure(self, prepared: Prepared) -> None:
        """Measure what is not measured yet.

        A cancelled task puts the run back into the queue: then the server stops, and the next one goes on with it.
        """
        recording: Recording | None = None
        try:
            run = await insist(lambda: stored_run(self._place.database, self._run_id, self._plan))
            recording = await insist(lambda: Recording.begin(self._place.database, run, self._place.instance_id))
            addresses = [address.to_dict() for address in prepared.addresses]
            job = Job("run", run, addresses, settings_for_child(self._place.settings))
            words = await self._listen(job, recording)
            await recording.finish()
            if not recording.is_lost:
                await self._conclude(recording.last, words)
        except asyncio.CancelledError:
            await self._give_back(recording)
            raise
        except LabError as error:
            await self.end_early("failed", error.detail, error.code)
        finally:
            await self._see_that_it_ends()

    async def end_early(self, status: RunStatus, detail: str | None, code: str | None) -> None:
        """End the run with a report of what was measured until now, if anything was."""
        try:
            progress = self._feed.progress or Progress(phase="analysing")
            self._feed.say(progress.model_copy(update={"phase": "analysing"}))
            report = await self._analysed("cancelled" if status in {"cancelled", "interrupted"} else "failed")
            await self._end(status, report, detail, code)
        except asyncio.CancelledError:
            self._has_ended = True  # here: the server stops, and the next one finds the run
            raise
        finally:
            await self._see_that_it_ends()

    async def _listen(self, job: Job, recording: Recording) -> str:
        """Store what the process says until its last event; returns its last words where there is none."""
        async with WorkerProcess.started(job, self._place.command) as worker, aclosing(worker.events()) as events:
            self._worker = worker
            if self._is_cancelled:
                worker.cancel()
            async for event in events:
                if event is not None:
                    recording.add(event)
                if isinstance(event, Progress):
                    self._feed.say(recording.progress)
                if recording.is_due:
                    await recording.flush()
                    if recording.is_lost:
                        worker.kill()
                        return "another server process has taken the run over"
                    if recording.cancel_wanted:
                        self.cancel()
                if recording.last:
                    return ""
            return await worker.last_words()

    async def _conclude(self, last: Reported | Failed | None, words: str) -> None:
        if isinstance(last, Reported):
            code = BenchmarkFailed.code if last.outcome == "failed" else None
            await self._end(last.outcome, last.report, last.error, code)
        elif self._is_cancelled:
            await self.end_early("cancelled", None, None)
        elif last:
            await self.end_early("failed", last.detail, last.code)
        else:
            detail = f"The process that measured died ({words}). What it had measured is kept; resume goes on with it."
            await self.end_early("failed", detail, BenchmarkFailed.code)

    async def _analysed(self, outcome: Outcome) -> ReportBody | None:
        """Return the report of what is stored, or None where nothing is or no report can be made of it."""
        run = await insist(lambda: stored_run(self._place.database, self._run_id, self._plan))
        if not run.records:
            return None
        try:
            last = await answer(self._place, Job("analyse", run, outcome=outcome))
        except LabError as error:
            _log.warning("benchmark %s has no report: %s", self._run_id, error.detail)
            return None
        return last.report if isinstance(last, Reported) else None

    async def _end(self, status: RunStatus, report: ReportBody | None, detail: str | None, code: str | None) -> None:
        values: dict[str, Any] = {"status": status, "ended_at": now(), "grade": report and report.grade}
        values |= {"error": detail and storable(detail), "error_code": code}
        packed = await asyncio.to_thread(_packed, report) if report else None

        async def write() -> bool:
            async with self._place.database.transaction() as db:
                repository = BenchmarkRepository(db)
                is_ours = await repository.change(self._run_id, values, instance_id=self._place.instance_id)
                if is_ours:
                    await repository.release(self._run_id)
                    if packed:
                        await repository.put(self._run_id, "report", packed)
            return is_ours

        if await insist(write):
            self._place.observe(status, values["grade"])
        self._has_ended = True

    async def _give_back(self, recording: Recording | None) -> None:
        self._has_ended = True  # here; the next start finds it
        with suppress(DatabaseUnavailable):  # it finds a run that was never given back as well
            if recording:
                await recording.flush()
            progress = first_progress(self._plan, message="Waits for the next start of the server.")
            async with self._place.database.transaction() as db:
                repository = BenchmarkRepository(db)
                values = {"status": "queued", "progress": progress}
                if await repository.change(self._run_id, values, instance_id=self._place.instance_id):
                    await repository.release(self._run_id)

    async def _see_that_it_ends(self) -> None:
        """Leave no run behind that is said to be measured; what went wrong then is on its way to the log."""
        if not self._has_ended:
            await self._end("failed", None, "An error of AI Lab itself; the server's log says more.", LabError.code)


def _packed(report: ReportBody) -> bytes:
    return packed_json(json.loads(report.model_dump_json()))  # has null for what is no number


async def compared(place: Workplace, job: Job) -> list[Comparison]:
    """Return what stored runs say of each other.

    Raises:
        BenchmarkFailed: the comparison could not be made.
    """
    last = await answer(place, job)
    if isinstance(last, Compared):
        return last.comparisons
    raise BenchmarkFailed("The runs could not be compared. Their reports can still be read one by one.")


async def answer(place: Workplace, job: Job) -> Reported | Compared:
    """Return what a process says to a job that measures nothing.

    Raises:
        BenchmarkFailed: it said nothing, or that it failed.
        InvalidRequest: what was asked cannot be answered, such as a comparison of runs with nothing in common.
    """
    job.settings = settings_for_child(place.settings)
    words = ""
    try:
        async with asyncio.timeout(_ANALYSIS_SECONDS), WorkerProcess.started(job, place.command) as worker:
            async with aclosing(worker.events()) as events:
                async for event in events:
                    if isinstance(event, Reported | Compared):
                        return event
                    if isinstance(event, Failed):
                        kind = InvalidRequest if event.code == InvalidRequest.code else BenchmarkFailed
                        raise kind(event.detail)
            words = await worker.last_words()
    except TimeoutError:
        words = f"no answer in {_ANALYSIS_SECONDS:g} s"
    raise BenchmarkFailed(f"The process that computes the figures died ({words}). Ask again, or look into the log.")


async def insist(access: Callable[[], Awaitable[_T]]) -> _T:
    """Read or write until the database can be used: a run must not end otherwise than it did."""
    while True:
        try:
            return await access()
        except DatabaseUnavailable as error:
            _log.warning("a benchmark waits for the database: %s", error.detail)
            await asyncio.sleep(_AGAIN_SECONDS)
