"""How those who watch a run in this process hear of its progress."""

from __future__ import annotations

import asyncio

from ai_lab.benchmarks.schemas import Progress


class Feed:
    """The latest progress of a run. Who is slow to listen misses what was in between, and holds up nobody."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.has_ended = False
        self._version = 0
        self._changed = asyncio.Event()

    def say(self, progress: Progress) -> None:
        """Replace the progress."""
        self.progress = progress
        self._version += 1
        self._wake()

    def end(self) -> None:
        """Say that the run has ended, or is no longer measured here."""
        self.has_ended = True
        self._wake()

    async def after(self, version: int) -> int:
        """Wait until there is something newer than ``version``, or the end; return what is newest then."""
        while self._version == version and not self.has_ended:
            await self._changed.wait()
        return self._version

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
