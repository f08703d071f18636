"""How calls reach the server, for both clients: the two ways to send, and one rule for sending again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

import httpx

from ai_lab.access import token_for
from ai_lab.client.calls import Call
from ai_lab.client.events import Reader
from ai_lab.client.problems import error_of
from ai_lab.errors import AnswerLost, RateLimited, ServerUnreachable, StartupError, TurnInProgress, Unauthorized
from ai_lab.providers.http_client import LineSplitter, client_options
from ai_lab.settings import Settings, check_base_url

T = TypeVar("T")
_LINE_LIMIT_BYTES = 256 * 1024 * 1024  # the last event holds the whole answer
_LONGEST_WAITS = 5
_LONGEST_PAUSE_SECONDS = 30.0
_Failure = httpx.HTTPError | TurnInProgress | RateLimited
_FAILURES = (httpx.HTTPError, TurnInProgress, RateLimited)


class Attempts:
    """Decides whether a call is sent again: once after a lost connection, then until the first one has ended.

    One that came too soon for the server's rate limit, and so was not begun, is sent again when the server says so.
    Every mutation carries an Idempotency-Key, so that the work is done once.
    """

    def __init__(self, url: str) -> None:
        self.was_lost = False
        self._url = url
        self._waits = 0

    def pause_seconds(self, failure: _Failure) -> float:
        """Return how long to wait before sending again, or raise what the caller shall see."""
        if isinstance(failure, RateLimited):
            self._waits += 1
            pause = failure.retry_after_seconds
            if pause is None or pause > _LONGEST_PAUSE_SECONDS or self._waits > _LONGEST_WAITS:
                raise failure
            return pause
        if isinstance(failure, TurnInProgress):
            self._waits += 1
            if not self.was_lost or self._waits > _LONGEST_WAITS:
                raise failure
            return failure.retry_after_seconds or 1.0
        is_loss = isinstance(failure, httpx.NetworkError | httpx.RemoteProtocolError)
        if is_loss and not isinstance(failure, httpx.ConnectError) and not self.was_lost:
            self.was_lost = True
            return 0.0
        raise self._explained(failure) from failure

    def _explained(self, failure: httpx.HTTPError) -> ServerUnreachable:
        if isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerUnreachable(
                f"No AI Lab server answers at {self._url}. Start it with ./start.sh (or: uv run main.py), or give the "
                "address of one that runs: base_url='http://host:port'."
            )
        if isinstance(failure, httpx.TimeoutException):
            return AnswerLost(f"{self._url} was silent for too long. Give a larger timeout_seconds, or use stream().")
        return AnswerLost(f"The connection to {self._url} broke ({failure}). What was acknowledged is safe; try again.")


class Connection:
    """Sends calls and waits for the answers."""

    def __init__(self, base_url: str, timeout_seconds: float, token: str | None = None) -> None:
        self._url = check_base_url(base_url)
        options = client_options(self._url, timeout_seconds)
        self._http = httpx.Client(base_url=self._url, headers=_credentials(self._url, token), **options)

    def send(self, call: Call[T]) -> T:
        """Return the result of a call."""
        attempts = Attempts(self._url)
        while True:
            try:
                response = self._http.send(self._http.build_request(**call.request()))
                return _result(call, response, attempts)
            except _FAILURES as failure:
                time.sleep(attempts.pause_seconds(failure))

    def events(self, call: Call[Any], reader: Reader[T]) -> Generator[T, None, None]:
        """Yield what the reader makes of a stream; closing it closes the connection, which the server sees."""
        attempts = Attempts(self._url)
        while True:
            try:
                with self._http.stream(**call.request()) as response:
                    if response.is_error:
                        response.read()
                        _result(call, response, attempts)
                    lines = LineSplitter(_LINE_LIMIT_BYTES)
                    for block in response.iter_bytes():
                        for line in lines.feed(block):
                            if (item := reader.read(line)) is not None:
                                yield item
                reader.end()
            except _FAILURES as failure:
                if reader.has_begun:
                    raise reader.broken() from failure
                time.sleep(attempts.pause_seconds(failure))
            else:
                return

    def close(self) -> None:
        """Close what is open."""
        self._http.close()


class AsyncConnection:
    """``Connection`` for programs with an event loop."""

    def __init__(self, base_url: str, timeout_seconds: float, token: str | None = None) -> None:
        self._url = check_base_url(base_url)
        options = client_options(self._url, timeout_seconds)
        self._http = httpx.AsyncClient(base_url=self._url, headers=_credentials(self._url, token), **options)

    async def send(self, call: Call[T]) -> T:
        """Return the result of a call."""
        attempts = Attempts(self._url)
        while True:
            try:
                response = await self._http.send(self._http.build_request(**call.request()))
                return _result(call, response, attempts)
            except _FAILURES as failure:
                await asyncio.sleep(attempts.pause_seconds(failure))

    async def events(self, call: Call[Any], reader: Reader[T]) -> AsyncGenerator[T, None]:
        """Yield what the reader makes of a stream; closing it closes the connection, which the server sees."""
        attempts = Attempts(self._url)
        while True:
            try:
                async with self._http.stream(**call.request()) as response:
                    if response.is_error:
                        await response.aread()
                        _result(call, response, attempts)
                    lines = LineSplitter(_LINE_LIMIT_BYTES)
                    async for block in response.aiter_bytes():
                        for line in lines.feed(block):
                            if (item := reader.read(line)) is not None:
                                yield item
                reader.end()
            except _FAILURES as failure:
                if reader.has_begun:
                    raise reader.broken() from failure
                await asyncio.sleep(attempts.pause_seconds(failure))
            else:
                return

    async def close(self) -> None:
        """Close what is open."""
        await self._http.aclose()


def _credentials(url: str, token: str | None) -> dict[str, str]:
    """Return the header with the token that was given, else with the one that this machine has for the server.

    A notebook on another machine may have no settings, or ones it cannot read: the server then says what it wants.

    Raises:
        Unauthorized: the token that was given holds what no header can.
    """
    if token is None:
        try:
            token = token_for(Settings.load(), url)
        except StartupError:
            return {}
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()):
        raise Unauthorized("This is no token: it holds other signs than letters, digits and punctuation.")
    return {"authorization": f"Bearer {token}"}


def _result(call: Call[T], response: httpx.Response, attempts: Attempts) -> T:
    if response.is_success or response.status_code in call.answers_with:
        try:
            return call.read(response.content)
        except ValueError as reason:
            origin = f"{response.url.scheme}://{response.url.netloc.decode()}"
            raise ServerUnreachable(f"What answers at {origin} is not this version of AI Lab.") from reason
    error = error_of(response.status_code, response.content, response.headers.get("retry-after"))
    if attempts.was_lost and call.settled_by and isinstance(error, call.settled_by):
        return call.read(b"")
    raise error
