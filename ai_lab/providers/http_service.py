"""One model service over HTTP: its address, its key, its connections."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

from ai_lab import __version__
from ai_lab.errors import AddressRefused, ProviderAuthFailed, ProviderError
from ai_lab.providers.http_client import read_body, send, timeouts
from ai_lab.providers.http_errors import ERROR_BODY_LIMIT_BYTES, ServiceErrors
from ai_lab.providers.outbound import Outbound

JSON_LIMIT_BYTES = 64_000_000
_ERROR_BODY_TIMEOUT_SECONDS = 5.0
_DRAIN_TIMEOUT_SECONDS = 0.1

#: Returns the key to send now, or None.
ReadKey = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True)
class Exchange:
    """A successful answer, its body unread, and the words for what may still go wrong with it."""

    response: httpx.Response
    errors: ServiceErrors


class HttpService:
    """Requests to one base URL. Whatever fails raises an error of ``ai_lab.errors``, never one of httpx.

    Args:
        name: the provider's name, for error texts.
        base_url: what every path is appended to.
        api_key: returns the key. It is asked at every request, kept for as long as that, and travels in the header
            ``key_header`` and nowhere else.
        timeout_seconds: the longest silence of the service.
        transport: what makes the connections; default: those of a server of the user's own.
        key_header: the header that carries the key.
        key_scheme: what stands before the key in it.
        headers: what else goes with every request, such as the version of the API.
        address_hint: what a right address looks like, for the error where it is wrong.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: ReadKey | None,
        timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
        key_header: str = "Authorization",
        key_scheme: str = "Bearer ",
        headers: Mapping[str, str] = MappingProxyType({}),
        address_hint: str = " (most end in /v1)",
    ) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._errors = ServiceErrors(name, base_url, address_hint=address_hint)
        self._read_key = api_key
        self._key_header = key_header
        self._key_scheme = key_scheme
        # An event stream is not worth compressing, and packing it would hold tokens back.
        plain = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"ai-lab/{__version__}"}
        self._sent_headers = {**plain, "Content-Type": "application/json", **headers}
        self._transport = transport or Outbound().stream_transport(self.base_url, is_local=True)
        self._limits = timeouts(timeout_seconds).as_dict()
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        model: str | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Exchange]:
        """Send a request and give the successful answer, its body unread; at the end the connection is let go.

        Args:
            method: GET or POST.
            path: what follows the base URL.
            body: sent as JSON.
            model: the model it is about, for error texts.
            timeout_seconds: the longest silence, where it differs from the service's.
        """
        limits = self._limits if timeout_seconds is None else httpx.Timeout(timeout_seconds).as_dict()
        content = None if body is None else encode_json(body)
        key = await self.key()
        if self._is_closed:  # a call may wait between two tries while somebody takes its service away
            raise ProviderAuthFailed(f"The API key of {self.name} was removed or changed meanwhile. Ask again.")
        errors = self._errors.hiding(key)
        try:
            request = httpx.Request(
                method,
                _parsed(self.base_url + path),
                content=content,
                headers=self._headers(key),
                extensions={"timeout": limits},
            )
            response = await self._send(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise errors.from_httpx(error) from error
        except AddressRefused as error:
            raise errors.from_refusal(error) from None
        try:
            if not response.is_success:
                said = await read_error_body(response)
                raise errors.from_answer(response.status_code, response.headers, said, model, path)
            yield Exchange(response, errors)
        finally:
            await response.aclose()

    async def fetch(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        model: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Return the JSON of an answer; the arguments are those of ``open``."""
        async with self.open(method, path, body, model=model, timeout_seconds=timeout_seconds) as exchange:
            try:
                content = await read_body(exchange.response, JSON_LIMIT_BYTES)
            except httpx.HTTPError as error:
                raise exchange.errors.from_httpx(error, streaming=True) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise ProviderError(f"{self.name} answered with something other than JSON. Check its address.") from None

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send a request without httpx's client: no redirects, cookies or proxies that only cost time here."""
        ask = self._transport.handle_async_request
        response = await (send(ask, request) if isinstance(self._transport, httpx.AsyncHTTPTransport) else ask(request))
        response.request = request
        return response

    async def close(self) -> None:
        """Give back all connections; nothing is sent any more."""
        self._is_closed = True
        await self._transport.aclose()

    async def key(self) -> str | None:
        """Return the key as it is now; for one request, not to be kept."""
        return await current_key(self.name, self._read_key)

    def _headers(self, key: str | None) -> dict[str, str]:
        return self._sent_headers if key is None else {**self._sent_headers, self._key_header: self._key_scheme + key}


@functools.lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


async def current_key(name: str, read: ReadKey | None) -> str | None:
    """Return the key of a service as it is now.

    Raises:
        ProviderAuthFailed: no header could carry it.
    """
    key = ((await read() if read else None) or "").strip() or None
    if key and not (key.isascii() and key.isprintable()):
        raise ProviderAuthFailed(f"The API key of {name} has characters that no key has. Enter it again.")
    return key


def encode_json(body: dict[str, Any]) -> bytes:
    """Return ``body`` as JSON; half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


async def read_error_body(response: httpx.Response) -> bytes:
    """Return the beginning of an error answer's body, or nothing where it does not come."""
    try:
        async with asyncio.timeout(_ERROR_BODY_TIMEOUT_SECONDS):
            return await read_body(response, ERROR_BODY_LIMIT_BYTES)
    except (TimeoutError, httpx.HTTPError):
        return b""


async def drain(blocks: AsyncGenerator[Any, None]) -> None:
    """Read what follows the end of an answer, so that the connection can serve again; wait for it only a moment."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_SECONDS):
            async for _ in blocks:
                pass
