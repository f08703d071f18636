"""Server-sent events that notice a client that leaves, also while nothing is being sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HEARTBEAT_SECONDS = 10.0
MEDIA_TYPE = "text/event-stream"
#: How /openapi.json describes a stream: one event at a time.
CONTENT = {
    MEDIA_TYPE: {
        "itemSchema": {
            "type": "object",
            "properties": {
                "event": {"type": "string"},
                "id": {"type": "string"},
                "data": {"type": "string", "contentMediaType": "application/json"},
            },
            "required": ["data"],
        }
    }
}
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def event(data: str, *, name: str | None = None, event_id: int | None = None) -> bytes:
    """Return one event; ``data`` is JSON and so has no line break."""
    head = f"event: {name}\n" if name else ""
    if event_id is not None:
        head += f"id: {event_id}\n"
    return f"{head}data: {data}\n\n".encode()


class EventStream(Response):
    """Sends events as they come and comments while there are none.

    Args:
        events: whole events, as made by ``event``.
        on_leave: called once when the client is gone; it must bring ``events`` to an end.
        heartbeat_seconds: silence after which a comment is sent.
        headers: besides those of every stream.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        events: AsyncIterator[bytes],
        on_leave: Callable[[], None],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._on_leave = on_leave
        self._heartbeat_seconds = heartbeat_seconds
        self._sent_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        watching = asyncio.create_task(_until_gone(receive, self._on_leave))
        beating = asyncio.create_task(self._beat(send))
        try:
            async for item in self._events:
                self._sent_at = time.monotonic()
                await send({"type": "http.response.body", "body": item, "more_body": True})
            beating.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            self._on_leave()
        finally:
            watching.cancel()
            beating.cancel()
            await asyncio.wait({watching, beating})

    async def _beat(self, send: Send) -> None:
        """Keep proxies from closing a connection on which a model thinks."""
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if time.monotonic() - self._sent_at >= self._heartbeat_seconds:
                await send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})


async def cancel_when_gone(request: Request, on_leave: Callable[[], None]) -> asyncio.Task[None]:
    """Call ``on_leave`` when the client of a plain request leaves; cancel the task once the answer is there."""
    return asyncio.create_task(_until_gone(request.receive, on_leave))


async def _until_gone(receive: Receive, on_leave: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_leave()
