"""Either client behind one interface, so that every test holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from ai_lab.chat import Answer, Delta
from ai_lab.client import AsyncLabClient, LabClient

Kind = Literal["sync", "async"]


class EitherClient:
    """``LabClient`` in a thread, or ``AsyncLabClient``."""

    def __init__(self, kind: Kind, url: str) -> None:
        self._sync = LabClient(url) if kind == "sync" else None
        self._async = AsyncLabClient(url) if kind == "async" else None

    async def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method that returns one thing."""
        if self._sync:
            return await asyncio.to_thread(getattr(self._sync, name), *arguments, **options)
        return await getattr(self._async, name)(*arguments, **options)

    async def every(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        """Call a method that yields."""
        if self._sync:
            return await asyncio.to_thread(lambda: list(getattr(self._sync, name)(*arguments, **options)))
        return [item async for item in getattr(self._async, name)(*arguments, **options)]

    async def stream(
        self, *arguments: Any, on_delta: Callable[[Delta], bool] = lambda _: True, **options: Any
    ) -> Answer:
        """Stream an answer; leave the stream where ``on_delta`` says False."""
        if self._sync:
            return await asyncio.to_thread(self._stream, arguments, options, on_delta)
        assert self._async
        async with self._async.stream(*arguments, **options) as stream:
            async for delta in stream:
                if not on_delta(delta):
                    break
        return stream.answer

    async def close(self) -> None:
        if self._sync:
            self._sync.close()
        if self._async:
            await self._async.close()

    def _stream(self, arguments: Any, options: Any, on_delta: Callable[[Delta], bool]) -> Answer:
        assert self._sync
        with self._sync.stream(*arguments, **options) as stream:
            for delta in stream:
                if not on_delta(delta):
                    break
        return stream.answer
