"""A stamp at every read from the socket, by way of aiohttp.

aiohttp hands bytes from its protocol to whoever reads them by way of a buffer and the event loop. With many streams
that way takes milliseconds, so the stamp is taken where the event loop hands over what it has read, and the bytes are
matched with it afterwards by their position in the body. All sockets that are ready are read and stamped before the
first of their bytes is parsed.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from ai_lab.benchmarks.records import Record
from ai_lab.errors import AddressRefused

#: Common servers drop a quiet connection after 5 s; ours are let go of first.
_KEEP_SECONDS = 3.0
_NAME_SECONDS = 300


class _Reads:
    """When the bytes of one answer were read: its head, and the body up to which byte at which moment."""

    __slots__ = ("body", "headers_ns", "until")

    def __init__(self, headers_ns: int, body: Any) -> None:
        self.headers_ns = headers_ns
        self.body = body
        self.until: deque[tuple[int, int]] = deque()


class StampingProtocol(ResponseHandler):
    """aiohttp's protocol of one connection, which notes when it was given what."""

    reads: _Reads | None = None
    _read_ns = 0
    _is_paused = False

    def data_received(self, data: bytes) -> None:
        """Take what was read from the socket; nothing means to go on with what was held back."""
        if data:
            self._read_ns = time.perf_counter_ns()
        super().data_received(data)
        if self.reads is not None:
            self.reads.until.append((self.reads.body.total_bytes, self._read_ns))

    def start_timeout(self) -> None:
        """Begin to watch for silence: the request is written."""
        self._read_ns = time.perf_counter_ns()
        super().start_timeout()

    def _reschedule_timeout(self) -> None:
        """Leave the timer as it is: aiohttp would make another one for every read."""
        if self._read_timeout_handle is None:
            super()._reschedule_timeout()

    def _on_read_timeout(self) -> None:
        """See whether it was silent for so long, and else look again when it may have been."""
        left = (self.read_timeout or 0) - (time.perf_counter_ns() - self._read_ns) / 1e9
        if left > 0:
            self._read_timeout_handle = self._loop.call_later(left, self._on_read_timeout)
        else:
            super()._on_read_timeout()

    def pause_reading(self) -> None:
        """Read no more for now: nobody takes it."""
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading; asked after every piece that is taken, which would cost half as much as the piece itself."""
        if self._is_paused:
            self._is_paused = False
            super().resume_reading(resume_parser)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take the head of an answer and the reader of its body."""
        self.reads = _Reads(self._read_ns, data[1])
        super().feed_data(data, size)


class StampedResponse(aiohttp.ClientResponse):
    """A response that has the stamps of its reads; its connection may serve another request before it is read."""

    reads: _Reads

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the head."""
        protocol = connection.protocol
        await super().start(connection)
        self.reads = protocol.reads  # type: ignore[union-attr]  # the connector makes only such ones
        return self


class StampingConnector(aiohttp.TCPConnector):
    """Kept connections that are still open when a request is written to them, without a limit on their number.

    Args:
        vet: sees every address before it is connected to, and raises ``AddressRefused`` to prevent that.
    """

    keeps = True

    def __init__(self, vet: Callable[[str], None] | None = None) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=_KEEP_SECONDS,
            ttl_dns_cache=_NAME_SECONDS,
            socket_factory=functools.partial(_vetted_socket, vet) if vet else None,
        )
        factory: Any = functools.partial(StampingProtocol, loop=asyncio.get_running_loop())
        self._factory = factory  # aiohttp has no public word for it

    async def connect(self, req: Any, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109  # aiohttp's own signature
        """Return a kept connection that the server has not closed, or a new one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol: Any = connection.protocol  # a StampingProtocol
            if not self.keeps:
                protocol.force_close()
            if protocol.reads is None or (self.keeps and not _has_ended(connection)):
                return connection
            connection.close()


def _vetted_socket(vet: Callable[[str], None], where: Any) -> socket.socket:
    """Return the socket for one address of a host; refused like this, the host's next address is tried."""
    family, kind, protocol, _, address = where
    try:
        vet(str(address[0]))
    except AddressRefused as error:
        raise PermissionError(errno.EACCES, error.detail) from None
    return socket.socket(family, kind, protocol)


def _has_ended(connection: Connection) -> bool:
    """Return whether a connection has something to read before anything was asked: its end, or nothing of use.

    The event loop would only notice when it next looks, which may be after the request was written.
    """
    sock: Any = connection.transport and connection.transport.get_extra_info("socket")
    if sock is None:
        return True
    if sys.platform == "win32":
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    record: Record | None = context.trace_request_ctx
    if record:
        record.connected_ns, record.connection_reused = time.perf_counter_ns(), False


async def _reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    record: Record | None = context.trace_request_ctx
    if record:
        record.connected_ns, record.connection_reused = time.perf_counter_ns(), True


async def _sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """Stamp the request right before the one write to the socket that it goes out with, head and body.

    Afterwards would be too late: the write wakes the server, which may run before the writer goes on.
    """
    record: Record | None = context.trace_request_ctx
    if record and record.sent_ns is None:
        record.sent_ns = time.perf_counter_ns()


def tracing() -> aiohttp.TraceConfig:
    """Return what stamps the connection and the sending of requests that have a record as their context."""
    traced = aiohttp.TraceConfig()
    traced.on_connection_create_end.append(_connected)
    traced.on_connection_reuseconn.append(_reused)
    traced.on_request_chunk_sent.append(_sent)
    return traced
