"""What happens around every request: ids, a limit on the body, a line in the log."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_lab.clock import new_id
from ai_lab.logging import RequestIds, SlowOperations, request_ids
from ai_lab.traces.context import new_trace_id, parse_traceparent
from backend.measured import route_template

MAX_BODY_BYTES = 32 * 1024 * 1024
#: For what takes a key or a token: those are checked letter by letter.
SMALL_BODY_BYTES = 64 * 1024
_SMALL_BODIES = ("/api-keys", "/login")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Asked every few seconds by other programs.
_PROBES = {"health", "metrics", "performance"}
_SERVER_ERRORS = 500
#: Take long by their nature: a service or model answers, which its first token tells more about, or a process
#: computes figures.
_LONG_ANSWERS = {
    "POST /api-keys/{service}/test",
    "POST /benchmark/llm",
    "POST /benchmarks/compare",
    "POST /chat",
    "POST /traces/{trace_id}/replay",
    "POST /v1/chat/completions",
    "POST /v1/embeddings",
}

logger = logging.getLogger("ai_lab.access")


class RequestContext:
    """Plain ASGI, because Starlette's middleware class cancels handlers and buffers streams.

    Args:
        app: answers the requests.
        slow: told how long each request took until the first byte of its answer.
    """

    def __init__(self, app: ASGIApp, slow: SlowOperations | None = None) -> None:
        self._app = app
        self._slow = slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids = _ids_of(scope)
        scope.setdefault("state", {}).update(ids._asdict())
        root_path = scope.get("root_path", "")
        started = time.perf_counter()
        first_byte_at = 0.0
        status = _SERVER_ERRORS
        received = sent = 0
        has_begun = False
        limit = SMALL_BODY_BYTES if scope["path"].startswith(_SMALL_BODIES) else MAX_BODY_BYTES
        refusal = _refusal_of(scope, limit)

        async def receive_limited() -> Message:
            nonlocal received
            # Before the first byte is read; nor is a client asked to go on that waits with "Expect: 100-continue".
            message: Message = {"type": "http.disconnect"} if refusal else await receive()
            received += len(message.get("body", b""))
            error = refusal or (_too_large(limit) if received > limit else None)
            if error is None:
                return message
            if has_begun:  # nobody would be told
                return {"type": "http.disconnect"}
            # Not one of ours: FastAPI turns any other error that it meets while it reads into a 400.
            raise error

        def send_with_id(message: Message) -> Awaitable[None]:  # no coroutine of its own: it runs for each chunk
            nonlocal status, first_byte_at, sent, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                MutableHeaders(scope=message)["x-request-id"] = ids.request_id
            elif body := message.get("body"):
                first_byte_at = first_byte_at or time.perf_counter()
                sent += len(body)
            return send(message)

        token = request_ids.set(ids)
        try:
            await self._app(scope, receive_limited, send_with_id)
        finally:
            ended = time.perf_counter()
            _log(scope, status, ended - started, sent)
            if self._slow:
                operation = f"{scope['method']} {route_template(scope, root_path)}"  # what a user sent is no name
                if operation not in _LONG_ANSWERS:
                    self._slow("http", operation, (first_byte_at or ended) - started)
        # Not after an error: whoever answers for it, outside of here, logs it with these ids. uvicorn gives each
        # request a context of its own, so that they are seen by no other one.
        request_ids.reset(token)


def _refusal_of(scope: Scope, limit: int) -> HTTPException | None:
    """Return what is wrong with the body of a request by what its headers say of it."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            return _too_large(limit)
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            return HTTPException(415, "Send the body as it is: compressed ones are not taken.")
    return None


def _too_large(limit: int) -> HTTPException:
    size = f"{limit // 1024**2} MiB" if limit >= 1024**2 else f"{limit // 1024} KiB"
    return HTTPException(413, f"A request may have {size} here. Send less at once.")


def _ids_of(scope: Scope) -> RequestIds:
    """Return the ids that the client sent, as far as they are well formed, else new ones."""
    request_id, traceparents = "", []
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = request_id or value.decode("latin-1")
        elif name == b"traceparent":
            traceparents.append(value.decode("latin-1"))
    parent = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    return RequestIds(
        request_id if _REQUEST_ID.fullmatch(request_id) else new_id(),
        parent[0] if parent else new_trace_id(),
    )


def _log(scope: Scope, status: int, seconds: float, sent: int) -> None:
    path = scope["raw_path"].decode("latin-1")  # as it was sent, and without the query: that may hold secrets
    level = logging.INFO
    if status >= _SERVER_ERRORS:
        level = logging.WARNING
    elif path.lstrip("/").partition("/")[0] in _PROBES:
        level = logging.DEBUG
    if logger.isEnabledFor(level):
        client = scope.get("client")
        fields = {
            "method": scope["method"],
            "path": path,
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
            "bytes_sent": sent,
            "client": client[0] if client else None,
        }
        logger.log(level, "request", extra=fields)
