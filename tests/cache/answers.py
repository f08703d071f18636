"""Requests and answers for tests of the cache."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.engine import make_url

from ai_lab.cache import AnswerCache, CacheKey, StoredAnswer
from ai_lab.cache.tiers import Existing
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.database.timing import Observe
from ai_lab.providers import ChatRequest, Message, Usage
from ai_lab.settings import Settings


def request(question: str = "What is a gateway?", **more: Any) -> ChatRequest:
    return ChatRequest(**({"model": "tiny", "messages": [Message("user", question)]} | more))


def answer(text: str = "A door.", **more: Any) -> StoredAnswer:
    values: dict[str, Any] = {"finish_reason": "stop", "usage": Usage(7, 3), "created_at": now()}
    return StoredAnswer(**({"provider": "fake", "model": "tiny", "text": text} | values | more))


def key_of(cache: AnswerCache, question: str = "What is a gateway?", **more: Any) -> CacheKey:
    cache_key = cache.key_of("fake", "tiny", request(question), **more)
    assert cache_key
    return cache_key


@contextlib.asynccontextmanager
async def opened(
    database_url: str,
    *,
    stale_seconds: float = 2.0,
    observe_database: Observe | None = None,
    existing: Existing | None = None,
    **settings: Any,
) -> AsyncIterator[AnswerCache]:
    """Open a cache as a server would: with a database handle, memory and counts of its own."""
    database = Database(make_url(database_url), observe=observe_database)
    cache = AnswerCache.open(
        Settings.model_validate({"cache": True} | settings), database, stale_seconds=stale_seconds, existing=existing
    )
    try:
        yield cache
    finally:
        await cache.close()
        await database.close()
