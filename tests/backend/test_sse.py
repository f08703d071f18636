import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Message

from backend.sse import EventStream, event

SCOPE: dict[str, Any] = {"type": "http"}


class Client:
    """The server's side of a connection: what was sent over it, and a client that leaves when told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message.get("body", b""))


async def test_silence_is_filled_with_comments_and_events_stay_whole() -> None:
    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.2)
        yield event('{"a": 1}', name="x", event_id=1)

    client = Client()
    await EventStream(slow(), lambda: None, heartbeat_seconds=0.05)(SCOPE, client.receive, client.send)
    body = b"".join(client.sent)
    assert body.count(b": keep-alive\n\n") >= 2
    assert body.endswith(b'event: x\nid: 1\ndata: {"a": 1}\n\n')


async def test_no_comment_while_events_come() -> None:
    async def quick() -> AsyncIterator[bytes]:
        for number in range(20):
            await asyncio.sleep(0.01)
            yield event(str(number))

    client = Client()
    await EventStream(quick(), lambda: None, heartbeat_seconds=0.1)(SCOPE, client.receive, client.send)
    assert b"keep-alive" not in b"".join(client.sent)


async def test_a_client_that_leaves_in_silence_ends_the_work() -> None:
    left = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        await left.wait()
        nothing: list[bytes] = []
        for piece in nothing:
            yield piece

    client = Client()
    stream = asyncio.create_task(EventStream(silent(), left.set)(SCOPE, client.receive, client.send))
    await asyncio.sleep(0.05)
    assert not stream.done()
    client.left.set()
    await asyncio.wait_for(stream, timeout=30)
    assert left.is_set()


async def test_a_connection_that_breaks_while_sending_ends_the_work() -> None:
    left = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield event("1")

    async def broken(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError

    await asyncio.wait_for(EventStream(endless(), left.set)(SCOPE, Client().receive, broken), timeout=30)
    assert left.is_set()
