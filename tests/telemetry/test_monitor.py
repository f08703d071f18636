"""``@monitor_performance`` on everything that can be called: what is counted, what is timed, what is left as it was."""

import asyncio
import contextlib
import functools
import gc
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field

import pytest

from ai_lab.telemetry.operations.monitor import monitor_performance, subscribe, unsubscribe

PAUSE_SECONDS = 0.05


@dataclass
class Calls:
    """What was reported."""

    seen: list[tuple[str, float, bool]] = field(default_factory=list)

    def function(self, name: str, seconds: float, *, failed: bool = False) -> None:
        self.seen.append((name, seconds, failed))

    def outcome(self) -> list[tuple[str, bool]]:
        return [(name, failed) for name, _, failed in self.seen]


@pytest.fixture
def calls() -> Iterator[Calls]:
    calls = Calls()
    subscribe(calls)
    yield calls
    unsubscribe(calls)


class OddError(Exception):
    pass


def fail_oddly() -> None:
    raise OddError


def test_a_function(calls: Calls) -> None:
    @monitor_performance("adding")
    def add(one: int, two: int = 2) -> int:
        """Add."""
        time.sleep(PAUSE_SECONDS)
        return one + two

    assert add(1, two=3) == 4
    ((name, seconds, failed),) = calls.seen
    assert (name, failed) == ("adding", False)
    assert seconds >= PAUSE_SECONDS
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert list(inspect.signature(add).parameters) == ["one", "two"]


def test_without_a_name_it_is_the_qualified_one(calls: Calls) -> None:
    class Trainer:
        @monitor_performance
        def step(self) -> int:
            return 1

        @monitor_performance()
        def other(self) -> int:
            return 2

    assert Trainer().step() + Trainer().other() == 3
    here = "test_without_a_name_it_is_the_qualified_one.<locals>.Trainer"
    assert calls.outcome() == [(f"{here}.step", False), (f"{here}.other", False)]


def test_static_and_class_methods_in_either_order(calls: Calls) -> None:
    class Trainer:
        @monitor_performance("static above")
        @staticmethod
        def one() -> int:
            return 1

        @staticmethod
        @monitor_performance("static below")
        def two() -> int:
            return 2

        @monitor_performance("class above")
        @classmethod
        def three(cls) -> str:
            return cls.__name__

        @classmethod
        @monitor_performance("class below")
        def four(cls) -> str:
            return cls.__name__

    assert (Trainer.one(), Trainer().two(), Trainer.three(), Trainer().four()) == (1, 2, "Trainer", "Trainer")
    assert [name for name, _, _ in calls.seen] == ["static above", "static below", "class above", "class below"]


def test_callables_without_a_name(calls: Calls) -> None:
    assert monitor_performance("half")(functools.partial(round, 0.5))() == 0
    assert calls.outcome() == [("half", False)]


def test_an_error_is_a_failure_and_passes_unchanged(calls: Calls) -> None:
    error = OddError("as it was")

    @monitor_performance("failing")
    def fail() -> None:
        raise error

    with pytest.raises(OddError) as raised:
        fail()
    assert raised.value is error
    assert error.__cause__ is error.__context__ is None
    assert calls.outcome() == [("failing", True)]


def test_stopping_the_program_is_no_failure(calls: Calls) -> None:
    @monitor_performance("stopped")
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert calls.outcome() == [("stopped", False)]


async def test_a_coroutine(calls: Calls) -> None:
    @monitor_performance("waiting")
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    assert inspect.iscoroutinefunction(wait)
    assert await wait(PAUSE_SECONDS) == "done"
    assert calls.seen[0][1] >= PAUSE_SECONDS * 0.9
    with pytest.raises(TypeError):
        await wait("long")  # type: ignore[arg-type]  # fails on purpose
    task = asyncio.create_task(wait(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls.outcome() == [("waiting", False), ("waiting", True), ("waiting", False)]


@monitor_performance("counting")
def count(most: int) -> Generator[int, int | None, str]:
    """Count up; what is sent is added, ``OddError`` begins anew."""
    number = 0
    while number < most:
        time.sleep(0.001)
        try:
            number += 1 + ((yield number) or 0)
        except OddError:
            number = 0
    return "done"


def test_a_generator(calls: Calls) -> None:
    assert inspect.isgeneratorfunction(count)
    began = time.perf_counter()
    counting = count(10)
    assert calls.seen == []
    assert next(counting) == 0
    assert counting.send(3) == 4
    assert counting.throw(OddError()) == 0
    time.sleep(PAUSE_SECONDS)  # the consumer's own time
    results = []

    def finish() -> Generator[int, int | None, None]:
        results.append((yield from counting))

    assert list(finish()) == list(range(1, 10))
    assert results == ["done"]
    ((name, seconds, failed),) = calls.seen
    assert (name, failed) == ("counting", False)
    assert 0.01 <= seconds <= time.perf_counter() - began - PAUSE_SECONDS


def test_a_generator_that_is_left_in_the_middle_is_no_failure(calls: Calls) -> None:
    closed = count(10)
    next(closed)
    closed.close()
    collected = count(10)
    next(collected)
    del collected
    gc.collect()
    never_begun = count(10)
    never_begun.close()
    assert calls.outcome() == [("counting", False)] * 2


def test_a_generator_that_fails(calls: Calls) -> None:
    error = OddError("as it was")

    @monitor_performance("failing")
    def fail() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(OddError) as raised:
        list(fail())
    assert raised.value is error
    with pytest.raises(ValueError, match="thrown"):
        count(3).throw(ValueError("thrown"))  # before its first step: nothing ran
    begun = count(3)
    next(begun)
    with pytest.raises(ValueError, match="thrown"):
        begun.throw(ValueError("thrown"))
    assert calls.outcome() == [("failing", True), ("counting", True)]


async def test_a_generator_that_fails_while_it_is_closed(calls: Calls) -> None:
    @monitor_performance("closing")
    def plain() -> Iterator[int]:
        try:
            yield 1
        finally:
            fail_oddly()

    @monitor_performance("closing")
    async def asynchronous() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            fail_oddly()

    begun = plain()
    next(begun)
    with pytest.raises(OddError):
        begun.close()  # type: ignore[attr-defined]  # an iterator by its annotation, a generator in fact
    begun_too = asynchronous()
    await anext(begun_too)
    with pytest.raises(OddError):
        await begun_too.aclose()
    assert calls.outcome() == [("closing", True)] * 2


def test_a_context_manager_made_of_a_generator(calls: Calls) -> None:
    @contextlib.contextmanager
    @monitor_performance("managing")
    def manage() -> Iterator[int]:
        try:
            yield 1
        except OddError:
            return

    with manage() as number:
        assert number == 1
    with manage():
        fail_oddly()
    assert calls.outcome() == [("managing", False)] * 2


@monitor_performance("streaming")
async def stream(most: int) -> AsyncGenerator[int, int | None]:
    """Count up as ``count`` does."""
    number = 0
    try:
        while number < most:
            await asyncio.sleep(0.001)
            try:
                number += 1 + ((yield number) or 0)
            except OddError:
                number = 0
    finally:
        await asyncio.sleep(0.001)


async def test_an_asynchronous_generator(calls: Calls) -> None:
    assert inspect.isasyncgenfunction(stream)
    began = time.perf_counter()
    streaming = stream(10)
    assert await anext(streaming) == 0
    assert await streaming.asend(3) == 4
    assert await streaming.athrow(OddError()) == 0
    await asyncio.sleep(PAUSE_SECONDS)  # the consumer's own time
    assert calls.seen == []
    assert [number async for number in streaming] == list(range(1, 10))
    ((name, seconds, failed),) = calls.seen
    assert (name, failed) == ("streaming", False)
    assert 0.01 <= seconds <= time.perf_counter() - began - PAUSE_SECONDS * 0.9


async def test_an_asynchronous_generator_that_ends_early(calls: Calls) -> None:
    closed = stream(10)
    await anext(closed)
    await closed.aclose()
    assert calls.outcome() == [("streaming", False)]

    cancelled = asyncio.create_task(_consume(stream(10**9)))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    assert calls.outcome() == [("streaming", False)] * 2

    begun = stream(10)
    await anext(begun)
    error = ValueError("thrown")
    with pytest.raises(ValueError, match="thrown") as raised:
        await begun.athrow(error)
    assert raised.value is error
    assert calls.outcome() == [*[("streaming", False)] * 2, ("streaming", True)]


async def _consume(streaming: AsyncGenerator[int, int | None]) -> None:
    async with contextlib.aclosing(streaming):
        async for _ in streaming:
            pass


async def test_an_asynchronous_context_manager_made_of_a_generator(calls: Calls) -> None:
    @contextlib.asynccontextmanager
    @monitor_performance("managing")
    async def manage() -> AsyncIterator[int]:
        try:
            yield 1
        except OddError:
            return

    async with manage() as number:
        assert number == 1
    async with manage():
        fail_oddly()
    with pytest.raises(ValueError, match="no number"):
        async with manage():
            int("no number")
    assert calls.outcome() == [("managing", False), ("managing", False), ("managing", True)]


def test_whoever_unsubscribed_hears_nothing(calls: Calls) -> None:
    @monitor_performance("heard")
    def work() -> None:
        pass

    other = Calls()
    subscribe(other)
    work()
    unsubscribe(other)
    unsubscribe(other)
    work()
    assert other.outcome() == [("heard", False)]
    assert calls.outcome() == [("heard", False)] * 2


def test_a_call_within_a_call_is_counted_for_itself(calls: Calls) -> None:
    @monitor_performance("recursion")
    def descend(depth: int) -> int:
        return depth and descend(depth - 1)

    descend(4)
    assert calls.outcome() == [("recursion", False)] * 5
