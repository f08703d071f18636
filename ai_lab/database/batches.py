"""Rows that are written in the background, many at a time, so that nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError

from ai_lab.errors import Conflict, LabError

#: One transaction holds no more, so that other writers have their turn soon.
_AT_ONCE = 200
#: After a failure it takes this many times as long until the next try.
_AFTER_FAILURE = 4
#: The fault of the database: it may be well again, or be set up, later.
_UNUSABLE = (LabError, OSError, TimeoutError, OperationalError, ProgrammingError)
#: The fault of what is written, as a Conflict is: it would fail again.
_UNWRITABLE = (SQLAlchemyError, ValueError, TypeError, OverflowError)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Batch(Generic[T]):
    """Collects items and writes them a moment later, in the order in which they came.

    A write that fails keeps its items for the next try, so ``write`` must be idempotent: it may have been committed.
    An item that can never be written is left out, with an entry in the log, and holds nobody up.

    Args:
        write: stores some items in one transaction.
        seconds: how long an item waits for others.
        most: items that are kept while they cannot be written; further ones are lost, which is logged.

    Attributes:
        lost: how many items were not written and never will be.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], Awaitable[None]], *, seconds: float = 0.5, most: int = 10_000
    ) -> None:
        self._write = write
        self._seconds = seconds
        self._most = most
        self._items: deque[T] = deque()
        self._turn = asyncio.Lock()
        self._added = self._settled = 0
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[bool]] = set()
        self._is_closed = self._is_failing = self._is_full = False
        self.lost = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return len(self._items)

    def stuck(self) -> Sequence[T]:
        """Return what waits while the last write has failed, the oldest first; else nothing."""
        return tuple(self._items) if self._is_failing else ()

    def add(self, item: T) -> None:
        """Take an item; it is written in the background. No I/O."""
        if self._is_closed or len(self._items) >= self._most:
            self._lose()
            return
        self._items.append(item)
        self._added += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_later())

    async def flush(self) -> bool:
        """Write what waits at this moment; return whether all of it is written.

        Callers at the same time share one transaction, and its failure: each of them trying again by itself would have
        the last one wait for all. What cannot be written goes on waiting.
        """
        upto, failures = self._added, self._failures
        while self._settled < upto:
            async with self._turn:
                if self._settled < upto and (self._failures != failures or not await self._write_some()):
                    return False
        return True

    async def settle(self, seconds: float) -> bool:
        """Do as ``flush``, but wait no longer than ``seconds``: the write goes on without the caller."""
        task = asyncio.create_task(self.flush())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        await asyncio.wait({task}, timeout=seconds)
        return task.done() and task.result()

    async def close(self) -> None:
        """Write all that waits; what cannot be written now is lost, which is logged."""
        self._is_closed = True
        async with self._turn:  # nobody is writing, so what is cancelled only waits
            if self._task is not None:
                self._task.cancel()
        if self._settling:  # else one of their failures would be taken for ours
            await asyncio.wait(self._settling)
        if not await self.flush():
            left = len(self._items)
            self.lost += left
            logger.error("%d entries could not be written before the end", left)

    async def _write_later(self) -> None:
        wait_seconds = self._seconds
        while self._items:
            await asyncio.sleep(wait_seconds)
            is_written = await self.flush()
            wait_seconds = self._seconds * (1 if is_written else _AFTER_FAILURE)

    async def _write_some(self) -> bool:
        """Write the oldest items and return whether that was possible; the caller has the turn."""
        some = [item for item, _ in zip(self._items, range(_AT_ONCE), strict=False)]
        is_written = await self._written(some)
        if is_written is not None:
            return is_written
        for item in some:  # each by itself, to leave out the one that cannot be written
            if await self._written([item]) is False:
                return False
        return True

    async def _written(self, items: Sequence[T]) -> bool | None:
        """Return whether the oldest items are settled; None: not yet, one of several can never be written."""
        try:
            await self._write(items)
        except _UNUSABLE as error:
            if not isinstance(error, Conflict):
                self._failed(error)
                return False
            unwritable: Exception = error
        except _UNWRITABLE as error:
            unwritable = error
        else:
            self._done(len(items))
            return True
        if len(items) > 1:
            return None
        self.lost += 1
        # Not the error's own text: it may hold what somebody said.
        logger.error("an entry cannot be written and is left out (%s)", type(unwritable).__name__)
        self._done(1)
        return True

    def _done(self, count: int) -> None:
        for _ in range(count):
            self._items.popleft()
        self._settled += count
        if self._is_failing:
            logger.info("waiting entries are being written again")
        self._is_failing = self._is_full = False

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if not self._is_failing:
            self._is_failing = True
            logger.warning("entries cannot be written now and wait in memory (%s)", type(error).__name__)

    def _lose(self) -> None:
        self.lost += 1
        if not self._is_full:
            self._is_full = True
            reason = "after the end" if self._is_closed else f"while {self._most} wait already"
            logger.error("entries are lost: they came %s", reason)
