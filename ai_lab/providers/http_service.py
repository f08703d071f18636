"""One model service over HTTP: its address, its key, its connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

from ai_lab.errors import AddressRefused, ProviderAuthFailed, ProviderError
from ai_lab.providers.http_client import client_options, read_body, send
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
        self._sent_headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
        self._transport = transport or Outbound().stream_transport(self.base_url, is_local=True)
        self._client = httpx.AsyncClient(**client_options(self.base_url, timeout_seconds), transport=self._transport)

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
        extra: dict[str, Any] = {} if timeout_seconds is None else {"timeout": timeout_seconds}
        content = None if body is None else encode_json(body)
        key = await self.key()
        errors = self._errors.hiding(key)
        try:
            request = self._client.build_request(
                method, self.base_url + path, content=content, headers=self._headers(key), **extra
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
        if isinstance(self._transport, httpx.AsyncHTTPTransport):
            return await send(self._client, request)
        return await self._client.send(request, stream=True)  # a cancelled one leaves nothing behind

    async def close(self) -> None:
        """Give back all connections."""
        await self._client.aclose()

    async def key(self) -> str | None:
        """Return the key as it is now; for one request, not to be kept."""
        return await current_key(self.name, self._read_key)

    def _headers(self, key: str | None) -> dict[str, str]:
        return self._sent_headers if key is None else {**self._sent_headers, self._key_header: self._key_scheme + key}


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
