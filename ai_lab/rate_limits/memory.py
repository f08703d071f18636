"""Windows of one process."""

from __future__ import annotations

import time

from limits.aio.storage import MemoryStorage

#: About 350 bytes each. Beyond that the oldest go: somebody sends from very many addresses.
_MOST_COUNTERS = 20_000


class BoundedMemory(MemoryStorage):
    """The library's memory, but counting takes equally long however many clients there are.

    The original goes through all counters at every request, in a task of its own: 0.9 ms with 10,000 of them. This one
    does so when it is full.
    """

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter and return it."""
        if key not in self.storage and len(self.storage) >= _MOST_COUNTERS:
            self._make_room()
        count = self.storage[key] + amount
        self.storage[key] = count
        if count == amount:
            self.expirations[key] = time.time() + expiry
        return count

    def _make_room(self) -> None:
        now = time.time()
        gone = [key for key, expires_at in self.expirations.items() if expires_at <= now]
        if len(gone) < _MOST_COUNTERS // 4:
            gone = list(self.storage)[: _MOST_COUNTERS // 2]
        for key in gone:
            self.storage.pop(key, None)
            self.expirations.pop(key, None)
