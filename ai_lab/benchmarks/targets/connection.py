"""HTTP to a server under test: connections, answers read by lines, and what their failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import httpx

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets.address import is_here
from ai_lab.benchmarks.targets.answer import whole_characters
from ai_lab.benchmarks.targets.stamping import StampedResponse, StampingConnector, tracing
from ai_lab.errors import LabError, ModelNotFound, ProviderError, ProviderTimeout, ProviderUnavailable, StreamBroken
from ai_lab.providers.http_client import LineSplitter
from ai_lab.providers.http_errors import ERROR_BODY_LIMIT_BYTES, ServiceErrors
from ai_lab.providers.http_service import encode_json

_JSON_LIMIT_BYTES = 64_000_000
_CONNECT_SECONDS = 5.0
_QUESTION_SECONDS = 10.0
_DRAIN_SECONDS = 0.1
_MISSING = frozenset({404, 405, 501})

#: A line with the stamp of the read that completed it.
Line = tuple[int, bytes]


class NoSuchPath(ProviderError):
    """The server answers, but has nothing at this path."""


class Answer:
    """The body of an answer, read by lines as they arrive.

    Attributes:
        is_cut: the body ended within a line.
    """

    def __init__(self, response: StampedResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.headers_ns = response.reads.headers_ns
        self.first_byte_ns: int | None = None
        self.is_cut = False
        self._response = response
        self._until = response.reads.until
        self._taken = 0
        self._splitter = LineSplitter()

    async def lines(self) -> list[Line]:
        """Wait for more and return the lines that it completes; at the end of the body an empty list.

        Raises:
            StreamBroken: a line is longer than 10 MB.
            aiohttp.ClientError: the connection was lost.
            TimeoutError: it was silent for too long.
        """
        while block := await self._response.content.readany():
            if found := self._stamped(block):
                return found
        if self.is_cut or not (rest := self._splitter.end()):
            return []
        self.is_cut = True
        return [(time.perf_counter_ns(), rest[0])]

    async def body(self, limit_bytes: int) -> bytes:
        """Return the whole body, or its beginning where it is longer."""
        parts: list[bytes] = []
        left = limit_bytes
        while left and (block := await self._response.content.readany()):
            parts.append(block[:left])
            left -= len(parts[-1])
        return b"".join(parts)

    async def drain(self) -> None:
        """Read what follows the end of the answer, so that the connection can serve again; wait only a moment."""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while await self._response.content.readany():
                    pass

    def _stamped(self, block: bytes) -> list[Line]:
        """Cut ``block``, which may be of several reads, into lines that are not empty, with the stamps of those."""
        found: list[Line] = []
        begin = 0
        while begin < len(block):
            until, at_ns = self._until.popleft() if self._until else (self._taken + len(block), time.perf_counter_ns())
            end = until - self._taken
            if end > begin and self.first_byte_ns is None:
                self.first_byte_ns = at_ns
            found += [(at_ns, line) for line in self._splitter.feed(block[begin:end]) if line]
            begin = end
        self._taken += len(block)
        return found


class Connections:
    """Requests to one base URL.

    Args:
        name: what error texts call the server.
        base_url: what every path is appended to.
        api_key: sent as bearer token.
        timeout_seconds: the longest silence.
        vet: raises ``AddressRefused`` for an address that must not be connected to. A proxy may have any.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None,
        *,
        timeout_seconds: float,
        vet: Callable[[str], None] = lambda _address: None,
    ) -> None:
        url = urlsplit(base_url.rstrip("/"))
        self.name = name
        self.public_url = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
        # A user and password in the address are sent only where there is no key.
        self.base_url = self.public_url if api_key else base_url.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self.errors = ServiceErrors(name, self.base_url).hiding(api_key)
        self._proxy = _proxy(self.base_url)
        self._connector = StampingConnector(None if self._proxy else vet)
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            response_class=StampedResponse,
            trace_configs=[tracing()],
            timeout=aiohttp.ClientTimeout(connect=_CONNECT_SECONDS, sock_read=timeout_seconds),
        )

    @property
    def keeps(self) -> bool:
        """Whether connections are used again."""
        return self._connector.keeps

    def keep_none(self) -> None:
        """Make a connection for each request from now on: the server closes them whatever it says."""
        self._connector.keeps = False

    @asynccontextmanager
    async def open(self, path: str, body: bytes, record: Record) -> AsyncIterator[Answer]:
        """Post ``body`` and give the answer, its body unread; ``record`` gets the stamps up to the head.

        Raises:
            aiohttp.ClientError: there is no connection, or it was lost.
            TimeoutError: no connection in time, or silence.
        """
        _forget_attempt(record)
        try:
            response = await self._session.post(
                self.base_url + path, data=body, allow_redirects=False, proxy=self._proxy, trace_request_ctx=record
            )
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if record.connection_reused:
                self.keep_none()  # it closes them just when they are used again; whether it read this one is not known
            raise
        try:
            answer = Answer(response)  # type: ignore[arg-type]  # response_class says so
            record.headers_ns, record.http_status = answer.headers_ns, answer.status
            yield answer
        finally:
            response.close()

    async def fetch(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        model: str | None = None,
        timeout_seconds: float = _QUESTION_SECONDS,
    ) -> Any:
        """Return the JSON of an answer.

        Args:
            method: GET, POST …
            path: what follows the base URL.
            body: sent as JSON.
            model: the model it is about, for error texts.
            timeout_seconds: the longest silence.

        Raises:
            LabError: there is no such answer; the text says why and what to do.
        """
        _, value = await self.fetch_with_headers(method, path, body, model=model, timeout_seconds=timeout_seconds)
        return value

    async def fetch_with_headers(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        model: str | None = None,
        timeout_seconds: float = _QUESTION_SECONDS,
    ) -> tuple[Mapping[str, str], Any]:
        """Return the headers and the JSON of an answer; see ``fetch``."""
        try:
            async with self._session.request(
                method,
                self.base_url + path,
                data=None if body is None else encode_json(body),
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(connect=_CONNECT_SECONDS, sock_read=timeout_seconds),
            ) as response:
                answer = Answer(response)  # type: ignore[arg-type]  # response_class says so
                content = await answer.body(_JSON_LIMIT_BYTES)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self.error_of(error, timeout_seconds=timeout_seconds) from error
        if not 200 <= answer.status < 300:  # noqa: PLR2004  # success
            said = content[:ERROR_BODY_LIMIT_BYTES]
            refused = self.errors.from_answer(answer.status, answer.headers, said, model, path)
            is_missing = answer.status in _MISSING and not isinstance(refused, ModelNotFound)
            raise NoSuchPath(refused.detail) if is_missing else refused
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise ProviderError(f"{self.name} answered with something other than JSON. Check its address.") from None
        if b"\\ud" in content.lower():  # half a character, which no report could hold
            value = json.loads(whole_characters(json.dumps(value, ensure_ascii=False)))
        return answer.headers, value

    async def look(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object of an answer, or an empty one where the server does not give it."""
        try:
            value = await self.fetch(method, path, body)
        except LabError:
            return {}
        return value if isinstance(value, dict) else {}

    def error_of(
        self, error: Exception, *, has_begun: bool = False, timeout_seconds: float | None = None
    ) -> ProviderError:
        """Return what a failure of a connection means; ``has_begun`` says that the answer had."""
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            no_connection = httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
            reason = no_connection("no connection")
            reason.__cause__ = error
            return self.errors.from_httpx(reason)
        if isinstance(error, TimeoutError):
            seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
            return ProviderTimeout(f"{self.name} was silent for {seconds:g} s. Raise timeout_seconds if it may be.")
        if isinstance(error, aiohttp.ClientResponseError):
            return ProviderError(f"{self.name} sent an answer that is no HTTP. Check its address.")
        if has_begun:
            return StreamBroken(f"The answer of {self.name} broke off: the connection was lost.")
        return ProviderUnavailable(f"{self.name} closed the connection without an answer. See its log, and try again.")

    async def close(self) -> None:
        """Give back all connections."""
        await self._session.close()


def _forget_attempt(record: Record) -> None:
    """Take back what an attempt before this one left: a field was refused."""
    record.connected_ns = record.sent_ns = record.headers_ns = record.http_status = record.connection_reused = None


def _proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names for an address, none for this machine."""
    url = urlsplit(base_url)
    if is_here(base_url) or urllib.request.proxy_bypass(url.hostname or ""):
        return None
    return urllib.request.getproxies().get(url.scheme)
