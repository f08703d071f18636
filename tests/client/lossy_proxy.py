"""A TCP proxy that loses answers: the server has done the work, the client never hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, Self

Fate = Literal["lose", "cut"]


class LossyProxy:
    """Use as ``async with``. Each fate in ``fates`` befalls one answer: it is lost, or cut after its first event."""

    def __init__(self, server_port: int) -> None:
        self.fates: list[Fate] = []
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        asking = asyncio.create_task(_ask(client, to_server))
        with contextlib.suppress(asyncio.CancelledError):
            await self._answer(server, to_client)
        asking.cancel()
        await asyncio.wait({asking})
        to_server.close()
        to_client.close()
        self._tasks.discard(task)

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while block := await server.read(2**16):
            fate = self.fates.pop(0) if self.fates else None
            if fate == "lose":
                return
            if fate == "cut":
                while b"\n\n" not in block:
                    block += await server.read(2**16)
                block = block[: block.index(b"\n\n") + 2]
            to_client.write(block)
            await to_client.drain()
            if fate == "cut":
                return


async def _ask(client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
    while block := await client.read(2**16):
        to_server.write(block)
        await to_server.drain()
