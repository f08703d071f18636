"""Following a run from its start to its result, with a progress bar, wherever it is measured."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ai_lab.benchmarks.notebook import BenchmarkResult
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Progress, Run

T = TypeVar("T")


class Door(Protocol):
    """Where runs are measured: ``Lab.benchmarks``, or ``AsyncLabClient.benchmarks`` of a server."""

    async def start(self, plan: Plan) -> Run:
        """Start a run."""

    async def get(self, run_id: str) -> Run:
        """Return a run."""

    def events(self, run_id: str) -> AsyncGenerator[Progress | Run, None]:
        """Yield how a run goes on."""

    async def cancel(self, run_id: str) -> Run:
        """Stop a run."""

    def records(self, run_id: str) -> AsyncIterator[Record]:
        """Yield the record of every request."""


async def measured(door: Door, plan: Plan, *, progress: bool) -> BenchmarkResult:
    """Start a run, follow it to its end and return its result; a caller that is cancelled cancels the run.

    Args:
        door: where it is measured.
        plan: what is measured.
        progress: show a bar, in a notebook as in a terminal.
    """
    run = await door.start(plan)
    try:
        with ProgressBar(run.title, shown=progress) as bar:
            async for change in door.events(run.id):
                if isinstance(change, Progress):
                    bar.show(change)
    except asyncio.CancelledError:
        await door.cancel(run.id)
        raise
    records = [record async for record in door.records(run.id)]
    return BenchmarkResult(await door.get(run.id), lambda: records)


def in_own_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of ``work``, also where an event loop runs already, as in a notebook.

    An interruption (Ctrl-C, a notebook's stop button) cancels the work, waits until it has tidied up, and is raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    loop = asyncio.new_event_loop()
    task = loop.create_task(work())

    def drive() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.wait({task}))

    thread = threading.Thread(target=drive, name="benchmark")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
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
