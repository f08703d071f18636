"""The answers that were used last, in this process: a hit here waits for nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ai_lab.cache.schemas import StoredAnswer

#: What an entry takes beside the answer's own text, about.
_OVERHEAD_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored answer, its length as JSON, and the Unix second at which it is over."""

    answer: StoredAnswer
    size_bytes: int
    expires_at: float


class Memory:
    """Answers by cache key; those not used for longest go first when there are more than ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str, at: float) -> Kept | None:
        """Return what is kept under ``key``, unless its time is over ``at`` this Unix second."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.expires_at <= at:
            self.remove(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: str, kept: Kept) -> None:
        """Keep an answer."""
        self.remove(key)
        self._kept[key] = kept
        self.size_bytes += kept.size_bytes + _OVERHEAD_BYTES
        while self.size_bytes > self._most_bytes:
            self.remove(next(iter(self._kept)))

    def remove(self, key: str) -> None:
        """Forget an answer, if it is kept."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size_bytes -= kept.size_bytes + _OVERHEAD_BYTES
