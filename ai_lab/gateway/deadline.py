"""The end of the time that a call has, kept with one timer for all of its pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Self, TypeVar

Result = TypeVar("Result")


class Deadline:
    """Breaks off what is awaited through it when its time has come; use it as ``with``.

    ``asyncio.timeout`` must not be held around a ``yield``, where it would cancel whoever reads, and so would set a
    timer for each piece. Here it is set once.

    Args:
        at: by the loop's clock.
    """

    def __init__(self, at: float) -> None:
        self._at = at
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._has_cancelled = False
        self._cancelled_by_others = 0
        self.has_passed = False

    def __enter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_at(self._at, self._pass)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._timer:
            self._timer.cancel()

    async def within(self, work: Awaitable[Result]) -> Result:
        """Wait for ``work``.

        Raises:
            TimeoutError: the time was over already, so that nothing was begun, or is over now; ``work`` was cancelled.
        """
        if self.has_passed:
            if isinstance(work, Coroutine):
                work.close()
            raise TimeoutError
        task = self._waiting = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if self._has_cancelled and task is not None and not self._take_back(task):
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
            if self._has_cancelled and task is not None:
                self._take_back(task)

    def _pass(self) -> None:
        self.has_passed = True
        if self._waiting is not None:
            self._has_cancelled = True
            self._cancelled_by_others = self._waiting.cancelling()
            self._waiting.cancel()

    def _take_back(self, task: asyncio.Task[object]) -> bool:
        """Forget our cancelling; returns whether somebody else cancels the task meanwhile, who counts."""
        self._has_cancelled = False
        return task.uncancel() > self._cancelled_by_others
