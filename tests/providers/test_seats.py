from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ai_lab.errors import EngineError
from ai_lab.providers.seats import Seats


class Line:
    """Users of seats who stay until they are told to go, and a record of who came in."""

    def __init__(self, answers_at_once: int = 2, wait_seconds: float = 30) -> None:
        self.events: list[str] = []
        self.seats = Seats(
            answers_at_once,
            wait_seconds,
            on_unused=lambda: self.events.append("unused"),
            on_use=lambda: self.events.append("used"),
        )
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, who: str, model: str, *, answers: bool = True) -> None:
        self._leave[who] = asyncio.Event()
        self._tasks[who] = asyncio.create_task(self._stay(who, model, answers=answers))
        await settle()

    async def go(self, who: str) -> None:
        self._leave[who].set()
        await self._tasks[who]
        await settle()

    async def give_up(self, who: str) -> None:
        self._tasks[who].cancel()
        await settle()

    async def _stay(self, who: str, model: str, *, answers: bool) -> None:
        async with self.seats.taken(model, answers=answers):
            self.inside.append(who)
            try:
                await self._leave[who].wait()
            finally:
                self.inside.remove(who)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def line_of(*users: tuple[str, str], answers_at_once: int = 2) -> AsyncIterator[Line]:
    line = Line(answers_at_once)
    for who, model in users:
        await line.come(who, model)
    yield line
    assert not line.inside
    assert not line.seats.in_use
    assert line.events[-1] == "unused"


async def test_so_many_answers_at_once() -> None:
    async with line_of(("1", "a"), ("2", "a"), ("3", "a")) as line:
        assert line.inside == ["1", "2"]
        await line.go("1")
        assert line.inside == ["2", "3"]
        await line.go("2")
        await line.go("3")


async def test_another_model_waits_for_its_turn_and_gets_it() -> None:
    async with line_of(("1", "a"), ("2", "b"), ("3", "a")) as line:
        assert line.inside == ["1"], "3 came after 2 and must not push in, though there is a seat"
        await line.go("1")
        assert line.inside == ["2"]
        await line.go("2")
        assert line.inside == ["3"]
        await line.go("3")


async def test_a_question_does_not_wait_for_a_seat() -> None:
    async with line_of(("1", "a"), ("2", "a"), ("3", "a")) as line:
        await line.come("question", "a", answers=False)
        assert line.inside == ["1", "2", "question"]
        await line.come("other", "b", answers=False)
        assert "other" not in line.inside
        for who in ("question", "1", "2", "3", "other"):
            await line.go(who)


async def test_who_gives_up_holds_up_nobody() -> None:
    async with line_of(("1", "a"), ("2", "b"), ("3", "a")) as line:
        await line.give_up("2")
        assert line.inside == ["1", "3"]
        await line.give_up("1")
        await line.go("3")


async def test_giving_up_at_the_moment_of_admission_gives_the_seat_back() -> None:
    async with line_of(("1", "a"), ("2", "a"), ("3", "a"), answers_at_once=1) as line:
        line._leave["1"].set()
        while "1" in line.inside:  # noqa: ASYNC110 - an event would wake us too late, when 2 is already inside
            await asyncio.sleep(0)
        assert line.seats.in_use
        assert not line.inside, "2 is admitted and does not know it yet"
        line._tasks["2"].cancel()
        await settle()
        assert line.inside == ["3"]
        await line.go("3")


async def test_the_wait_is_bounded() -> None:
    line = Line(answers_at_once=1, wait_seconds=0.05)
    await line.come("1", "a")
    with pytest.raises(EngineError, match=r"busy with other answers for 0\.05 s") as caught:
        async with line.seats.taken("a", answers=True):
            pass
    assert caught.value.retry_after_seconds
    await line.go("1")
    assert line.events == ["used", "unused"]
