"""The runs that this server process has to measure: those that wait for their targets, and those that have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ai_lab.benchmarks.execution import Execution, Workplace
from ai_lab.benchmarks.feed import Feed
from ai_lab.benchmarks.intake import Prepared
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import RunStatus
from ai_lab.clock import now
from ai_lab.errors import LabError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

#: Between two looks whether another server process has given a target back. Our own runs say so at once.
_LOOK_SECONDS = 2.0
#: More of them, on as many targets, would be in each other's way: they measure from one machine.
_MOST_AT_ONCE = 4
_MOST_WAITING = 100


class RunQueue:
    """Starts runs when their targets are free, and ends them when the server stops.

    Attributes:
        feeds: of the runs that wait or are measured here, by id.
    """

    def __init__(self, place: Workplace) -> None:
        self.feeds: dict[str, Feed] = {}
        self.is_closed = False
        self._place = place
        self._waiting: dict[str, Prepared] = {}
        self._executions: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starter: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether so many runs wait that no more should be asked for; those that are there already still come in."""
        return len(self._waiting) >= _MOST_WAITING

    def add(self, run_id: str, prepared: Prepared) -> None:
        """Let a stored run wait for its targets."""
        if self.is_closed:
            return  # it is in the database; the next start finds it there
        self._waiting[run_id] = prepared
        self.feeds.setdefault(run_id, Feed())
        self._wake.set()
        if self._starter is None or self._starter.done():
            self._starter = self.spawn(self._start_runs())

    def cancel(self, run_id: str) -> None:
        """Stop a run that is measured here; others are none of our business."""
        if execution := self._executions.get(run_id):
            execution.cancel()
        self._wake.set()

    def end_early(self, run_id: str, plan: Plan, status: RunStatus, detail: str | None, code: str | None) -> None:
        """End a run that is not gone on with, in the background."""
        self._waiting.pop(run_id, None)
        feed = self.feeds.setdefault(run_id, Feed())
        execution = Execution(self._place, run_id, plan, feed)
        self.spawn(self._supervise(run_id, feed, lambda: execution.end_early(status, detail, code)))

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run ``work`` in the background until it is done or the server stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def see_through(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do ``work`` to its end even if the caller is cancelled: what is stored must be known here too."""
        return await asyncio.shield(self.spawn(work))

    async def close(self) -> None:
        """Stop measuring; what is not done goes back into the queue of the database."""
        self.is_closed = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for feed in self.feeds.values():
            feed.end()
        self.feeds.clear()

    async def _start_runs(self) -> None:
        while self._waiting:
            self._wake.clear()
            try:
                run_id = await self._take_next()
            except LabError as error:  # a conflict too: a run that is deleted at the moment in which it is taken
                _log.warning("the queue of benchmarks waits for the database: %s", error.detail)
                run_id = None
            if run_id is not None:
                self._execute(run_id, self._waiting.pop(run_id))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()

    async def _take_next(self) -> str | None:
        waiting = set(self._waiting)  # now: what is added while we look is not gone because we did not see it
        async with self._place.database.transaction() as db:
            repository = BenchmarkRepository(db)
            ready = waiting if len(self._executions) < _MOST_AT_ONCE else ()
            run_id = await repository.take_next(ready, self._place.instance_id, now())
            queued = {run_id} if run_id else await repository.queued(self._place.instance_id)
        if run_id is None:
            for gone in waiting - queued:  # cancelled or deleted while it waited
                if self._waiting.pop(gone, None):  # else it is on its way to its end, see end_early
                    self._forget(gone, self.feeds[gone])
        return run_id

    def _execute(self, run_id: str, prepared: Prepared) -> None:
        feed = self.feeds.setdefault(run_id, Feed())
        execution = self._executions[run_id] = Execution(self._place, run_id, prepared.plan, feed)
        self.spawn(self._supervise(run_id, feed, lambda: execution.measure(prepared)))

    async def _supervise(self, run_id: str, feed: Feed, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._executions.pop(run_id, None)
            self._forget(run_id, feed)
            self._wake.set()

    def _forget(self, run_id: str, feed: Feed) -> None:
        feed.end()
        if self.feeds.get(run_id) is feed:
            del self.feeds[run_id]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, LabError):
            _log.error("a benchmark ended with an error of our own", exc_info=error)
