"""Watching a run until it has ended: a live bar in a terminal, a line now and then where there is none."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from ai_lab.benchmarks import Run
from ai_lab.benchmarks.schemas import Progress
from ai_lab.cli.bench_door import Door, say
from ai_lab.cli.figures import latency, plain
from ai_lab.errors import LabError

_LINE_SECONDS = 10.0


async def followed(door: Door, run: Run) -> tuple[Run, bool]:
    """Show how a run goes on until it has ended; return it, and whether it was interrupted.

    Ctrl-C, and being asked to end, cancel the run; it still ends in order, with a report of what was measured. A second
    Ctrl-C does not wait for that.
    """
    try:
        with _shown(run) as show, _signals_cancel():
            async for change in door.events(run.id):
                if isinstance(change, Progress):
                    show.say(change)
    except asyncio.CancelledError:
        if task := asyncio.current_task():
            task.uncancel()
        say("Cancelling; Ctrl-C again leaves at once.")
        try:
            await door.cancel(run.id)
            return await door.wait(run.id), True
        except LabError as error:
            say(f"It could not be cancelled ({error.detail}). Later: ai-lab bench cancel {run.id}")
            return run, True
    return await door.get(run.id), False


class _Lines:
    """For logs and pipes: a line every ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_SECONDS

    def say(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            say(f"{_phase(progress)}: {progress.done} of {progress.total} requests{_figures(progress, ', ')}")


class _Bar:
    """For a terminal."""

    def __init__(self, bars: Bars, has_arms: bool) -> None:
        self._bars = bars
        self._has_arms = has_arms
        self._task = bars.add_task("starting", total=None, figures="")

    def say(self, progress: Progress) -> None:
        self._bars.update(
            self._task,
            description=_phase(progress, with_arm=self._has_arms),
            completed=progress.done,
            total=progress.total or None,
            figures=_figures(progress),
        )


@contextmanager
def _shown(run: Run) -> Iterator[_Bar | _Lines]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines()
        return
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(min(12, console.width // 6)),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False, table_column=rest),
    )
    with Bars(*columns, console=console, transient=True, expand=True) as bars:
        yield _Bar(bars, len(run.plan.arms) > 1)


@contextmanager
def _signals_cancel() -> Iterator[None]:
    """Let the end of the terminal, or of the session, be what Ctrl-C is."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    numbers = [] if sys.platform == "win32" else [signal.SIGTERM, signal.SIGHUP]
    for number in numbers:
        if task:
            with suppress(RuntimeError, ValueError):  # not in the main thread
                loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in numbers:
            with suppress(RuntimeError, ValueError):
                loop.remove_signal_handler(number)


def _phase(progress: Progress, *, with_arm: bool = False) -> str:
    arm = plain(progress.arm) if with_arm and progress.arm else ""
    phase = "waiting for its turn" if progress.phase == "queued" else progress.phase
    return " · ".join(filter(None, (phase, arm)))


def _figures(progress: Progress, before: str = "") -> str:
    """Return how long it takes yet and what the latest request showed."""
    parts = []
    if progress.message:
        parts.append(plain(progress.message))
    if progress.seconds_left:
        parts.append(f"{latency(progress.seconds_left * 1000)} left")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.ttft_ms is not None:
        parts.append(f"first token {progress.ttft_ms:.0f} ms")
    if progress.decode_tps is not None:
        parts.append(f"{progress.decode_tps:.1f} tok/s")
    return before + ", ".join(parts) if parts else ""
