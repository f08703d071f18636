"""What keeps answers for all servers of a lab; memory is in front of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from ai_lab.cache.memory import Kept
from ai_lab.cache.schemas import CachedAnswer, CacheKey, StoredAnswer

_ENCODER = json.JSONEncoder(ensure_ascii=False)  # ``json.dumps`` makes a new one each time


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer to store; ``plain`` is what ``StoredAnswer`` is in JSON, the ids are those for which it was made."""

    cache_key: CacheKey
    plain: dict[str, Any]
    size_bytes: int
    created_at: datetime
    expires_at: datetime
    session_id: str | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is stored; None: the store does not say."""

    entries: int | None
    size_bytes: int | None
    oldest_at: datetime | None


class AnswerStore(Protocol):
    """Every method raises ``DatabaseUnavailable`` where the store cannot be reached."""

    limit_bytes: int | None

    @property
    def name(self) -> Literal["database", "redis"]:
        """Return what kind of store it is."""
        ...

    async def get(self, key: str) -> Kept | None:
        """Return what is stored under ``key`` and not over yet."""
        ...

    async def put(self, entries: Sequence[Entry]) -> None:
        """Store answers; a later one under the same key takes the place of the earlier."""
        ...

    async def generation(self) -> int:
        """Return a number that changes when answers are deleted before their time."""
        ...

    async def evict(self, key: str) -> bool:
        """Delete one answer and say whether there was one."""
        ...

    async def forget(self, session_id: str) -> None:
        """Delete the answers that were made for a conversation."""
        ...

    async def clear(self) -> int:
        """Delete all answers and return how many there were."""
        ...

    async def purge(self) -> None:
        """Delete what is over, and the oldest where there is too much."""
        ...

    async def sizes(self) -> Sizes:
        """Return how much is stored."""
        ...

    async def page(self, *, limit: int, before: tuple[datetime, str] | None) -> list[CachedAnswer]:
        """Return answers, the newest first, that were stored before this moment (and key)."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


def plain_of(answer: StoredAnswer) -> tuple[dict[str, Any], int] | None:
    """Return an answer as JSON can hold it, with its length in bytes; None where no JSON can (half characters)."""
    # ``dataclasses.asdict`` copies deeply and takes ten times as long.
    plain = {name: getattr(answer, name) for name in StoredAnswer.__slots__}
    plain["created_at"] = answer.created_at.isoformat()
    if (usage := answer.usage) is not None:
        plain["usage"] = usage.counts()  # to give it again costs nothing
    try:
        return plain, len(_ENCODER.encode(plain).encode())
    except (ValueError, RecursionError):  # a tool call nested too deeply
        return None


def answer_of_plain(plain: Any) -> StoredAnswer | None:
    """Return the answer that was stored, None where it is of another version of AI Lab."""
    try:
        return _adapter().validate_python(plain)
    except ValidationError:
        return None


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[StoredAnswer]:
    return TypeAdapter(StoredAnswer)
