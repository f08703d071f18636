"""Following a run from its start to its result, with a progress bar, wherever it is measured."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ai_lab.benchmarks.notebook import BenchmarkResult
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports import Rendered, ReportFormat
from ai_lab.benchmarks.reports.raw import read_lines
from ai_lab.benchmarks.schemas import Progress, Run
from ai_lab.errors import LabError

T = TypeVar("T")
#: Requests whose records are fetched at once, so that a result outlives its server; of longer runs when they are used.
_MOST_AT_ONCE = 20_000


class Door(Protocol):
    """Where runs are measured: ``Lab.benchmarks``, or ``AsyncLabClient.benchmarks`` of a server."""

    async def start(self, plan: Plan) -> Run:
        """Start a run."""

    async def get(self, run_id: str) -> Run:
        """Return a run."""

    def events(self, run_id: str) -> AsyncIterator[Progress | Run]:
        """Yield how a run goes on."""

    async def wait(self, run_id: str) -> Run:
        """Return a run when it has ended."""

    async def cancel(self, run_id: str) -> Run:
        """Stop a run."""

    async def report(self, run_id: str, fmt: ReportFormat) -> Rendered | bytes:
        """Return a report as a document."""


@dataclass(frozen=True)
class Place:
    """Where runs are measured and how to get there again, for what is fetched after the door was closed.

    ``server`` is the address of a server, or None for this process.
    """

    opened: Callable[[], AbstractAsyncContextManager[Door]]
    server: str | None


async def measured(door: Door, plan: Plan, place: Place, *, progress: bool) -> BenchmarkResult:
    """Start a run, follow it to its end and return its result; a caller that is cancelled cancels the run.

    Args:
        door: where it is measured.
        plan: what is measured.
        place: what the door belongs to.
        progress: show a bar, in a notebook as in a terminal.
    """
    run = await door.start(plan)
    try:
        with ProgressBar(run.title, shown=progress) as bar:
            async for change in door.events(run.id):
                if isinstance(change, Progress):
                    bar.show(change)
    except asyncio.CancelledError:
        with suppress(LabError):  # the server is gone, and with it the one who could be told
            await door.cancel(run.id)
            await door.wait(run.id)  # its report is made
        if progress:
            where = f"{run.id!r}, server={place.server!r}" if place.server else repr(run.id)
            sys.stderr.write(f"Cancelled. What was measured until now: Benchmark.stored({where})\n")
        raise
    return await result_of(door, run.id, place)


async def result_of(door: Door, run_id: str, place: Place) -> BenchmarkResult:
    """Return the result of a stored run; arguments as for ``measured``."""
    run = await door.get(run_id)
    raw = _Raw(run_id, place)
    if run.progress.done <= _MOST_AT_ONCE:
        await raw.fetch(door)
    return BenchmarkResult(run, raw.records, raw.samples)


class _Raw:
    """What a run was computed from, fetched once and read when somebody looks at it."""

    def __init__(self, run_id: str, place: Place) -> None:
        self._run_id = run_id
        self._place = place
        self._lines: bytes | None = None

    async def fetch(self, door: Door) -> bytes:
        document = await door.report(self._run_id, "jsonl")
        self._lines = document if isinstance(document, bytes) else document.content
        return self._lines

    def records(self) -> list[Record]:
        return [one for one in read_lines(self._fetched()) if isinstance(one, Record)]

    def samples(self) -> list[Sample]:
        return [one for one in read_lines(self._fetched()) if isinstance(one, Sample)]

    def _fetched(self) -> bytes:
        return in_own_loop(self._fetch_later) if self._lines is None else self._lines

    async def _fetch_later(self) -> bytes:
        async with self._place.opened() as door:
            return await self.fetch(door)


def in_own_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of ``work``, also where an event loop runs already, as in a notebook.

    An interruption (Ctrl-C, a notebook's stop button) cancels the work, waits until it has tidied up, and is raised; a
    second one does not wait.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    loop = asyncio.new_event_loop()
    task = loop.create_task(work())
    has_ended = threading.Event()  # not Thread.join: interrupted, that takes a thread that runs for one that has ended

    def drive() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop):  # closes what the work has left open
                loop.run_until_complete(asyncio.wait({task}))
        finally:
            has_ended.set()

    threading.Thread(target=drive, name="benchmark").start()
    try:
        has_ended.wait()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(task.cancel)
        has_ended.wait()
        raise
    return task.result()


class ProgressBar:
    """A bar that says what a run does, how many requests it has measured, and what the latest of them showed."""

    def __init__(self, title: str, *, shown: bool) -> None:
        with warnings.catch_warnings():  # a notebook without widgets gets a bar of text, and needs no advice
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm  # noqa: PLC0415 - only where a bar may be shown

            self._bar = tqdm(desc=title, unit="request", disable=not shown, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        self._bar.total = progress.total or None
        self._bar.n = progress.done
        figures = {"phase": progress.phase}
        if progress.failed:
            figures["failed"] = str(progress.failed)
        if progress.ttft_ms is not None:
            figures["ttft"] = f"{progress.ttft_ms:.0f} ms"
        if progress.decode_tps is not None:
            figures["decode"] = f"{progress.decode_tps:.1f} tok/s"
        self._bar.set_postfix(figures)
