"""Places at one service within this server: requests beyond them wait, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """So many requests at once. A free place is taken without waiting, and one that is given back goes to the next.

    Attributes:
        in_use: places that are taken.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        # A scrape asks in a thread of its own; only copying takes one step.
        return sum(not place.done() for place in list(self._waiting))

    def take_at_once(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self.in_use < self.most and not self._waiting:
            self.in_use += 1
            return True
        return False

    async def take(self) -> None:
        """Wait for a place; it must be given back with ``leave``, unless this was cancelled."""
        if self.take_at_once():
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given to us at the same instant
                self.leave()
            else:
                self._forget(place)
            raise

    def leave(self) -> None:
        """Give a place back: it goes to the one who waits longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.in_use -= 1

    def _forget(self, place: asyncio.Future[None]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
