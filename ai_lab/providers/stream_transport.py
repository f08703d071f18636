"""Connections for long answers: aiohttp's, under httpx's interface."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Iterator

import aiohttp
import httpx
import yarl

from ai_lab.providers.http_client import KEEPALIVE_SECONDS
from ai_lab.providers.outbound_transport import VettedRoute


class StreamTransport(httpx.AsyncBaseTransport):
    """Does what ``VettedTransport`` does, without proxies.

    An answer comes in many small pieces. httpx's own transport handles each of them in Python, which costs about 40 us
    apiece (``scripts/measure_gateway.py`` shows the whole); here a parser in C does, and all that has arrived is one
    block.
    """

    def __init__(self, route: VettedRoute) -> None:
        self._route = route
        self._tls: ssl.SSLContext | bool = route.place.scheme == "https" and httpx.create_ssl_context()
        self._bodies: set[_Body] = set()
        self._session: aiohttp.ClientSession | None = None  # belongs to the loop that runs at the first request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, its body unread. Raises ``AddressRefused`` where it may not go."""
        if trace := request.extensions.get("trace"):  # a cancelled request closes its connection, however early
            await trace("send_request_headers.started", {})
        return await self._route.send(request, lambda address: self._send(request, address))

    async def aclose(self) -> None:
        """Close all connections."""
        for body in tuple(self._bodies):
            body.break_off()  # a closed session leaves whoever reads waiting for ever
        if self._session:
            await self._session.close()

    async def _send(self, request: httpx.Request, address: str) -> httpx.Response:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=KEEPALIVE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        limits = request.extensions.get("timeout", {})
        with _as_httpx():
            answer = await self._session.request(
                request.method,
                _directed(request.url, address),
                headers=request.headers.multi_items(),  # Host among them
                data=request.content or None,
                allow_redirects=False,
                server_hostname=self._route.place.host if self._tls else None,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=limits.get("connect"), sock_read=limits.get("read")
                ),
            )
        body = _Body(answer, self._bodies)
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=body, request=request)


@functools.lru_cache(maxsize=256)
def _directed(url: httpx.URL, address: str) -> yarl.URL:
    """Return the same at a numeric address; the ``Host`` header and the name in the certificate stay."""
    return yarl.URL(str(url.copy_with(host=address, username=None, password=None)), encoded=True)


class _Body(httpx.AsyncByteStream):
    """What follows an answer's head, as it arrives."""

    def __init__(self, answer: aiohttp.ClientResponse, opened: set[_Body]) -> None:
        self._answer = answer
        self._opened = opened
        opened.add(self)

    def break_off(self) -> None:
        """Let whoever reads know that nothing more comes."""
        self._answer.content.set_exception(aiohttp.ClientConnectionError("the transport was closed"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            while block := await self._answer.content.readany():
                yield block

    async def aclose(self) -> None:
        """Let go of the connection: kept if the answer was read to its end, else closed."""
        self._opened.discard(self)
        self._answer.close()


@contextlib.contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise what httpx raises."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout("no connection in time") from error
    except aiohttp.ServerTimeoutError as error:
        raise httpx.ReadTimeout("the service was silent") from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error.os_error)) from error.os_error
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
        raise httpx.RemoteProtocolError("the service closed the connection") from error
    except aiohttp.ClientConnectionError as error:
        raise httpx.ReadError("the connection was lost") from error
    except aiohttp.ClientError as error:
        raise httpx.RemoteProtocolError("the service sent no HTTP") from error
