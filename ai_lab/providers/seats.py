"""Who may use the one engine now: first come first served, one model at a time, so many answers at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass

from ai_lab.errors import EngineError


@dataclass(eq=False)
class _Waiting:
    model: Hashable
    answers: bool
    admitted: asyncio.Future[None]


class Seats:
    """Admit uses of the engine in order of arrival.

    A use for another model than the current one waits until the engine is unused; those behind it wait as well, for
    else a steady stream of requests for the current model would keep it out for ever. Questions that write no answer
    (counting tokens) take a moment: for the current model they are admitted at once.

    Args:
        answers_at_once: how many answers the engine writes at the same time.
        wait_seconds: the longest wait.
        on_unused: called when the last use has ended and nobody waits.
        on_use: called when the engine is used again.
    """

    def __init__(
        self, answers_at_once: int, wait_seconds: float, *, on_unused: Callable[[], None], on_use: Callable[[], None]
    ) -> None:
        self._answers_at_once = answers_at_once
        self._wait_seconds = wait_seconds
        self._on_unused = on_unused
        self._on_use = on_use
        self._model: Hashable = None
        self._uses = 0
        self._answers = 0
        self._waiting: deque[_Waiting] = deque()

    @property
    def in_use(self) -> bool:
        """Return whether anybody uses the engine."""
        return self._uses > 0

    @contextlib.asynccontextmanager
    async def taken(self, model: Hashable, *, answers: bool) -> AsyncIterator[None]:
        """Hold a seat while the block runs; ``model`` is then the only one in use.

        Raises:
            EngineError: none became free in time.
        """
        if self._fits(model, answers=answers) and not (answers and self._waiting):
            self._take(model, answers=answers)
        else:
            await self._wait(model, answers=answers)
        try:
            yield
        finally:
            self._leave(answers=answers)

    async def _wait(self, model: Hashable, *, answers: bool) -> None:
        place = _Waiting(model, answers, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        admitted = False
        try:
            async with asyncio.timeout(self._wait_seconds):
                await place.admitted
            admitted = True
        except TimeoutError:
            raise EngineError(
                f"The embedded engine was busy with other answers for {self._wait_seconds:g} s. Try again later, or "
                "let it write more answers at once (AI_LAB_ENGINE_SLOTS).",
                retry_after_seconds=5,
            ) from None
        finally:
            if not admitted:
                self._give_up(place)

    def _give_up(self, place: _Waiting) -> None:
        if place.admitted.done() and not place.admitted.cancelled():
            self._leave(answers=place.answers)  # admitted and given up at the same moment
            return
        with contextlib.suppress(ValueError):  # already passed over
            self._waiting.remove(place)
        self._admit()  # it may have held up those behind it

    def _fits(self, model: Hashable, *, answers: bool) -> bool:
        if not self._uses:
            return True
        return model == self._model and not (answers and self._answers >= self._answers_at_once)

    def _take(self, model: Hashable, *, answers: bool) -> None:
        self._model = model
        self._uses += 1
        self._answers += answers
        if self._uses == 1:
            self._on_use()

    def _leave(self, *, answers: bool) -> None:
        self._uses -= 1
        self._answers -= answers
        self._admit()
        if not self._uses:
            self._on_unused()

    def _admit(self) -> None:
        while self._waiting:
            place = self._waiting[0]
            if not place.admitted.done():  # else given up, and about to leave the line
                if not self._fits(place.model, answers=place.answers):
                    return
                self._take(place.model, answers=place.answers)
                place.admitted.set_result(None)
            self._waiting.popleft()
