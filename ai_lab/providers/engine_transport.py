"""HTTP/1.1 to the engine with little work for each piece of an answer.

A small model says a hundred tokens a second with every core at work. What httpx's own transport does for each of them
would cost the engine two in a hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

_CRLF = b"\r\n"


class EngineTransport(httpx.AsyncBaseTransport):
    """Makes a connection for each request: llama.cpp closes it afterwards, and none must meet a closing one."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, its body unread."""
        if trace := request.extensions.get("trace"):
            await trace("send_request_headers.started", {})
        limits = request.extensions["timeout"]
        try:
            async with asyncio.timeout(limits["connect"]):
                reader, writer = await asyncio.open_connection(request.url.host, request.url.port)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time", request=request) from error
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        body = _Body(reader, writer, limits["read"])
        try:
            writer.write(_head(request) + request.content)
            status, headers = await body.read_head()
        except BaseException:
            await body.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=body)


class _Body(httpx.AsyncByteStream):
    """What follows an answer's head, block by block as the engine sends it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_seconds: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_seconds = timeout_seconds
        self._length: int | None = None

    async def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        """Return the status and the headers."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                head = await self._reader.readuntil(_CRLF * 2)
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
            self._length = lengths[0] if lengths else None
            return int(first.split(" ")[1]), headers
        except TimeoutError as error:
            raise httpx.ReadTimeout("the engine was silent") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise httpx.ReadError("the engine closed the connection") from error
        except (asyncio.LimitOverrunError, ValueError, IndexError) as error:
            raise httpx.RemoteProtocolError("the engine sent no HTTP") from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._length is not None:
                yield await self._whole(self._length)
                return
            while block := await self._next_block():
                yield block
        except TimeoutError as error:
            raise httpx.ReadTimeout("the engine was silent") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise httpx.RemoteProtocolError("the engine closed the connection in mid-answer") from error
        except (asyncio.LimitOverrunError, ValueError) as error:
            raise httpx.RemoteProtocolError("the engine sent no HTTP") from error

    async def aclose(self) -> None:
        """Close the connection, which tells the engine to stop."""
        self._writer.close()

    async def _whole(self, length: int) -> bytes:
        async with asyncio.timeout(self._timeout_seconds):
            return await self._reader.readexactly(length)

    async def _next_block(self) -> bytes:
        async with asyncio.timeout(self._timeout_seconds):
            size = int(await self._reader.readuntil(_CRLF), 16)
            block = await self._reader.readexactly(size + len(_CRLF))
        return block[:size]


def _head(request: httpx.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % (name, value) for name, value in request.headers.raw if name.lower() != b"connection"]
    return _CRLF.join([*lines, b"Connection: close"]) + _CRLF * 2
