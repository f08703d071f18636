"""Connections that cost the server little, whatever their other end does or leaves undone."""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ai_lab.access import is_loopback
from ai_lab.clock import new_id
from backend.connection_limits import ConnectionLimits
from backend.errors import PROBLEM_TYPE, Problem

_DETAILS = {
    400: ("invalid_request", "This is no HTTP request."),
    408: ("request_timeout", "The rest of the request did not come in time. Send it again."),
    431: ("headers_too_large", "The header of a request may have 64 KiB."),
    503: ("too_many_connections", "Too many connections are open. Close some, or try again in a moment."),
}

logger = logging.getLogger("ai_lab.access")


def limited_protocol(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """Return the protocol for ``uvicorn.Config(http=…)`` with these limits."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits})


class _TooLargeError(Exception):
    """Stops the parser."""


class _LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which itself waits for ever and reads headers of any length.

    What the clock says is looked at every few seconds instead of by a timer for each event, which would be set and
    cancelled several times a request.
    """

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._heard_at = self._body_from = self._unsent_from = self.loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._in_head = self._in_body = False
        self._begun = self._head_bytes = self._unparsed_bytes = self._body_bytes = self._rest_bytes = self._unsent = 0
        self._head_from: float | None = None
        self._rest_from: float | None = None
        self._is_ending = False
        self._status = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        if self._is_one_too_many():
            self._is_ending = True
            self._say(503)
            transport.close()
            return
        self._watch = self.loop.call_later(self.limits.look_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        if self._watch:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; drop it where the connection is about to end."""
        self._heard_at = self.loop.time()
        if self._is_ending:
            self._drop(len(data))
            return
        was_in_body, self._begun = self._in_body, 0
        if not was_in_body and self._head_from is None:
            self._head_from = self._heard_at
        super().data_received(data)
        if not self._in_head:
            self._unparsed_bytes = 0
        elif self._begun + was_in_body < 2:  # noqa: PLR2004 - else most of the block is of requests before this one
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.limits.head_bytes and not self._is_ending:
                self._refuse(431)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head, self._head_bytes = True, 0
        self._begun += 1
        if self._head_from is None:
            self._head_from = self._heard_at
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers, which nobody here reads and which would come later than all checks, are dropped."""
        self._count_head(len(name) + len(value))
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start answering."""
        self._in_head, self._in_body = False, True
        self._head_from = self._rest_from = None
        self._head_bytes = self._body_bytes = self._rest_bytes = 0
        self._body_from = self._heard_at
        if len(self.pipeline) >= self.limits.pipelined:
            raise _TooLargeError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        if self.cycle.response_complete:
            self._drop(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._refuse(self._status)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: whoever asks for another protocol is answered in this one."""

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes:
            self._status = 431
            raise _TooLargeError

    def _is_one_too_many(self) -> bool:
        if len(self.connections) > self.limits.connections:
            return True
        address = self.client[0] if self.client else ""
        if is_loopback(address) or any(ip_address(address) in ip_network(proxy) for proxy in self.limits.proxies):
            return False
        others = (other.client for other in self.connections if isinstance(other, HttpToolsProtocol))
        return sum(1 for client in others if client and client[0] == address) > self.limits.connections_per_address

    def _look(self) -> None:
        """End a connection whose other end takes too long, else come back."""
        now, limits = self.loop.time(), self.limits
        self._watch = self.loop.call_later(limits.look_seconds, self._look)
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._unsent_from = now
        self._unsent = unsent
        if now - self._unsent_from > limits.reader_seconds:
            self._abort("its client does not read")
        elif self._is_ending or (self._in_body and self.cycle.response_complete):
            self._rest_from = self._rest_from or now
            if now - self._rest_from > limits.rest_seconds:
                self._abort("its client goes on sending after the answer")
        elif self._in_body:
            self._look_at_body(now)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._head_from = self._head_from and now  # the server's turn
        elif self._head_from is not None:
            if now - self._head_from > limits.head_seconds:
                self._refuse(408)
        elif self.timeout_keep_alive_task is None and now - self._heard_at > limits.silence_seconds:
            self.transport.close()

    def _look_at_body(self, now: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue or self._body_bytes >= self.limits.body_bytes:
            self._body_from, self._body_bytes = now, 0
        elif now - self._body_from > self.limits.body_seconds:
            self._refuse(408)

    def _drop(self, size: int) -> None:
        self._rest_bytes += size
        if self._rest_bytes > self.limits.rest_bytes:
            self._abort("its client goes on sending after the answer")

    def _refuse(self, status: int) -> None:
        """Answer in place of the application where that has not begun to, and end the connection."""
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.response_complete
        if is_answering:
            cycle.disconnected = True
            cycle.message_event.set()
        self._is_ending = True
        if (is_answering and cycle.response_started) or self.pipeline:
            self._abort("the request after the one that is being answered is none")
            return
        self._say(status)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _say(self, status: int) -> None:
        code, detail = _DETAILS[status]
        request_id = new_id()
        title = HTTPStatus(status).phrase
        problem = Problem(title=title, status=status, detail=detail, code=code, request_id=request_id)
        body = json.dumps(problem.model_dump(exclude_none=True)).encode()
        headers = {
            "content-type": PROBLEM_TYPE,
            "content-length": len(body),
            "x-request-id": request_id,
            "connection": "close",
        }
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["retry-after"] = 5
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {status} {title}\r\n{head}\r\n".encode() + body)
        self._log("connection refused", code)

    def _abort(self, reason: str) -> None:
        self._is_ending = True
        self._log("connection broken off", reason)
        self.transport.abort()

    def _log(self, message: str, reason: str) -> None:
        logger.info(message, extra={"client": self.client[0] if self.client else None, "reason": reason})
