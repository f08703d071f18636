"""What happens around every request: an id, a limit on the body, a line in the log."""

from __future__ import annotations

import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_lab.clock import new_id

MAX_BODY_BYTES = 32 * 1024 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

logger = logging.getLogger("ai_lab.access")


class RequestContext:
    """Plain ASGI, because Starlette's middleware class cancels handlers and buffers streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 500
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                # Not one of ours: FastAPI turns any other error that it meets while it reads into a 400.
                raise HTTPException(413, f"A request may have {MAX_BODY_BYTES // 1024**2} MiB. Send it in parts.")
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive_limited, send_with_id)
        finally:
            elapsed_ms = (time.perf_counter() - started) * 1000
            path = scope["raw_path"].decode("latin-1")  # as it was sent: decoded, it could hold a line break
            logger.info("%s %s %d %.1f ms %s", scope["method"], path, status, elapsed_ms, request_id)
