"""``@monitor_performance``: counts and times calls of functions, with or without a lab in the process.

A generator is timed from its first step to its end, whichever way it ends, and only while it runs itself: what its
consumer does between two steps is not its time. Whatever derives from ``Exception`` is a failure; being called off
(``CancelledError``, ``GeneratorExit``, ``KeyboardInterrupt``) is none. Errors pass through unchanged.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from threading import Lock
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from ai_lab.telemetry.operations.local import local

P = ParamSpec("P")
R = TypeVar("R")


class FunctionRecorder(Protocol):
    """What wants to know of every call of a monitored function; called from any thread."""

    def function(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Count and time one call."""


#: The process itself is always told, so that a notebook without a lab has its figures.
_recorders: tuple[FunctionRecorder, ...] = (local,)
_subscribing = Lock()


def subscribe(recorder: FunctionRecorder) -> None:
    """Tell ``recorder`` of every call from now on; a lab does so while it is open."""
    global _recorders  # noqa: PLW0603 - a tuple that is replaced whole can be read without a lock
    with _subscribing:
        _recorders = (*_recorders, recorder)


def unsubscribe(recorder: FunctionRecorder) -> None:
    """Stop telling ``recorder``; one that was not told is no error."""
    global _recorders  # noqa: PLW0603 - as above
    with _subscribing:
        _recorders = tuple(other for other in _recorders if other is not recorder)


@overload
def monitor_performance(name: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def monitor_performance(name: str | None = None, /) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def monitor_performance(name: Callable[P, R] | str | None = None, /) -> Any:
    """Count and time every call of the function, coroutine or generator that is decorated.

    ``@monitor_performance`` takes the function's qualified name, ``@monitor_performance("name")`` the given one. What
    is decorated keeps its kind and signature; it may stand above or below ``@staticmethod`` and ``@classmethod``.
    """
    if name is None or isinstance(name, str):
        return functools.partial(_monitored, name=name)
    return _monitored(name)


def _monitored(function: Any, *, name: str | None = None) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_monitored(function.__func__, name=name))
    name = name or cast("str", getattr(function, "__qualname__", repr(function)))
    name = name.encode("utf-8", "backslashreplace").decode()  # half characters can be shown nowhere
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, name)
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, name)
    if inspect.isgeneratorfunction(function):
        return _generator(function, name)

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with _Call(name):
            return function(*args, **kwargs)

    return timed


def _coroutine(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        with _Call(name):
            return await function(*args, **kwargs)

    return timed


def _generator(function: Callable[..., Generator[Any, Any, Any]], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        watch = _Stopwatch(name)
        try:
            return (yield from _Steps(function(*args, **kwargs), watch))
        finally:
            watch.report()

    return timed


def _async_generator(function: Callable[..., AsyncGenerator[Any, Any]], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        watch, generator = _Stopwatch(name), function(*args, **kwargs)
        step = generator.asend(None)
        try:
            while True:
                with watch:
                    item = await step
                sent, passed_in = None, _PassedIn()
                with passed_in:
                    sent = yield item
                if isinstance(passed_in.error, GeneratorExit):
                    with watch:
                        await generator.aclose()
                    raise passed_in.error
                step = generator.athrow(passed_in.error) if passed_in.error else generator.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            watch.report()

    return timed


class _Stopwatch:
    """Adds up the time spent in ``with`` blocks, and sees whether one of them failed."""

    __slots__ = ("_failed", "_name", "_seconds", "_started")

    def __init__(self, name: str) -> None:
        self._name = name
        self._seconds = 0.0
        self._failed = False

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._seconds += time.perf_counter() - self._started
        if (
            kind is not None
            and issubclass(kind, Exception)
            and not issubclass(kind, StopIteration | StopAsyncIteration)
        ):
            self._failed = True

    def report(self) -> None:
        """Tell everybody who wants to know."""
        for recorder in _recorders:
            recorder.function(self._name, self._seconds, failed=self._failed)


class _Call(_Stopwatch):
    """A stopwatch for one block, which it reports."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.report()


class _Steps(Generator[Any, Any, Any]):
    """A generator each step of which is timed."""

    def __init__(self, generator: Generator[Any, Any, Any], watch: _Stopwatch) -> None:
        self._generator, self._watch = generator, watch

    def send(self, value: Any, /) -> Any:
        with self._watch:
            return self._generator.send(value)

    def throw(self, *error: Any) -> Any:
        with self._watch:
            return self._generator.throw(*error)

    def close(self) -> None:
        with self._watch:
            self._generator.close()


class _PassedIn:
    """Takes the error that the consumer throws into a generator, to be passed on to the one inside."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True
