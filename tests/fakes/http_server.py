"""A scripted HTTP server on a loopback port: says what it is told, and records what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Reply:
    """An answer in parts: bytes are sent, a number is a pause in seconds.

    At its end the answer is ended properly, cut (connection closed before the end mark), reset (the connection is
    torn down with RST; without any part even before its status) or left hanging until the client goes.
    """

    parts: Iterable[bytes | float] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ending: Literal["end", "cut", "hang", "reset"] = "end"
    #: Silence before the first byte; ``math.inf``: for ever.
    late_seconds: float = 0.0


def json_reply(value: Any, status: int = 200, **headers: str) -> Reply:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply([json.dumps(value).encode()], status, {"content-type": "application/json", **names})


@dataclass
class ReceivedRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    #: Set when the client left before the answer was complete.
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    def json(self) -> Any:
        return json.loads(self.body)


class FakeServer:
    """Use as ``async with``; ``origin`` is its address. A subclass knows the default answer to each path."""

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        self.connection_count = 0
        self._arrived: asyncio.Queue[ReceivedRequest] = asyncio.Queue()
        self._scripts: dict[str, list[Reply]] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections that no side has closed."""
        return len(self._handlers)

    def script(self, path: str, *replies: Reply) -> None:
        """Answer requests for ``path`` with these replies in order; the last one stays."""
        self._scripts[path] = list(replies)

    async def next_request(self) -> ReceivedRequest:
        """Wait for the next request that was not waited for before."""
        return await asyncio.wait_for(self._arrived.get(), timeout=60)

    def received(self, path: str) -> list[ReceivedRequest]:
        return [request for request in self.requests if request.path == path]

    def default_reply(self, request: ReceivedRequest) -> Reply:
        return json_reply({"error": {"message": f"no route {request.path}"}}, status=404)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._handlers.add(task)
        self.connection_count += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while request := await _read_request(reader):
                self.requests.append(request)
                self._arrived.put_nowait(request)
                script = self._scripts.get(request.path, [])
                reply = script.pop(0) if len(script) > 1 else script[0] if script else self.default_reply(request)
                if not await _answer(reply, request, reader, writer):
                    break
        writer.close()
        self._handlers.discard(task)


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, path, headers, body)


async def _answer(
    reply: Reply, request: ReceivedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Send the reply while watching whether the client stays; return whether the connection can be used again."""
    sending = asyncio.create_task(_send(reply, writer))
    watching = asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done() or sending.exception():  # what is still sent may notice first
            request.disconnected.set()
        return sending.done() and not sending.exception() and reply.ending == "end"
    finally:
        for task in (sending, watching):
            task.cancel()
        await asyncio.gather(sending, watching, return_exceptions=True)


async def _send(reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.late_seconds:
        await (asyncio.sleep(reply.late_seconds) if math.isfinite(reply.late_seconds) else asyncio.Event().wait())
    headers = {"transfer-encoding": "chunked", **reply.headers}
    lines = [f"HTTP/1.1 {reply.status} Said so", *(f"{name}: {value}" for name, value in headers.items())]
    if reply.parts or reply.ending != "reset":
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    for part in reply.parts:
        if part == b"":  # as a chunk it would be the end of the answer
            continue
        if isinstance(part, bytes):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        else:
            await asyncio.sleep(part)
    if reply.ending == "hang":
        await asyncio.Event().wait()
    if reply.ending == "end":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    if reply.ending == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
