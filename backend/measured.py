"""Every request counted and timed, by the template of its route."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_lab.telemetry.prometheus.instruments import UNMATCHED, Instruments

_CLIENT_LEFT = 499
_FAILED = 500


class MeasuredRequests:
    """Plain ASGI; stands inside the middleware that sets the trace id, so that slow requests lead to their log."""

    def __init__(self, app: ASGIApp, instruments: Instruments) -> None:
        self._app = app
        self._instruments = instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        status = 0
        first_byte_seconds: float | None = None
        is_whole = has_left = False

        async def noticing_receive() -> Message:
            nonlocal has_left
            message = await receive()
            if message["type"] == "http.disconnect" and not is_whole:
                has_left = True
            return message

        async def noticing_send(message: Message) -> None:
            nonlocal status, first_byte_seconds, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                if first_byte_seconds is None:
                    first_byte_seconds = time.perf_counter() - started_at
                is_whole = not message.get("more_body", False)
            await send(message)

        root_path = scope.get("root_path", "")
        self._instruments.request_began()
        failed = True
        try:
            await self._app(scope, noticing_receive, noticing_send)
            failed = False
        finally:
            if failed or not status:
                status = _CLIENT_LEFT if has_left else _FAILED
            self._instruments.request_ended(
                scope["method"],
                route_template(scope, root_path),
                status,
                time.perf_counter() - started_at,
                first_byte_seconds,
                has_left=has_left,
            )


def route_template(scope: Scope, root_path: str = "") -> str:
    """Return the route of an answered request as /openapi.json spells it, or ``unmatched``.

    For a router within a router, ``scope["route"]`` knows only its own part of the path; FastAPI keeps the whole one
    beside it. A mounted application (static files) is one route.

    Args:
        scope: after the request was answered.
        root_path: that the scope had before; each mount adds to it.
    """
    whole = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    path: str | None = getattr(whole, "path_format", None)
    if path is not None:
        return path
    mounted = scope.get("root_path", "").removeprefix(root_path)
    return f"{mounted}/{{path}}" if mounted else UNMATCHED
