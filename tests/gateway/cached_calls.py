"""Calls through the cache to a scripted service, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from ai_lab.cache import AnswerCache
from ai_lab.clock import monotonic_ms, new_id, now
from ai_lab.database import Database
from ai_lab.gateway.ask import Ask
from ai_lab.gateway.caching import Caching
from ai_lab.gateway.call import Call, Route
from ai_lab.gateway.fallback import Fallback
from ai_lab.gateway.pace import Pace
from ai_lab.providers import ChatRequest, Chunk, Message, ResolvedModel
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.settings import Settings
from tests.fakes.openai_server import CHAT, OpenAIServer


class Unwatched:
    """Takes note of nothing."""

    def fallback(self, from_provider: str, to_provider: str) -> None: ...

    def cost(self, provider: str, model: str, cost_nanousd: int | None) -> None: ...

    def budget_refusal(self, provider: str) -> None: ...


class CachedCalls:
    """A service, the gateway's innermost steps and the cache before them."""

    def __init__(self, fake: OpenAIServer, cache: AnswerCache) -> None:
        self.fake = fake
        self.cache = cache
        self.providers = [OpenAICompatible(name, fake.base_url) for name in ("fake", "other")]
        self.models = [ResolvedModel(provider, "tiny", is_local=True) for provider in self.providers]
        self.caching = Caching(Fallback(Ask(Pace()), observe=Unwatched()), cache)

    @property
    def upstream_calls(self) -> int:
        return len(self.fake.received(CHAT))

    def call(self, question: str = "Hello?", *, models: int = 1, seconds: float = 30, **more: Any) -> Call:
        options = more.pop("options", {})

        async def make_request(model: ResolvedModel, _shrink: int) -> ChatRequest:
            return ChatRequest(model.model, [Message("user", question)], options)

        values: dict[str, Any] = {
            "id": new_id(),
            "route": Route(asked=None, alias=None, models=tuple(self.models[:models])),
            "make_request": make_request,
            "source": "chat",
            "started_at": now(),
            "started_ms": monotonic_ms(),
            "deadline": asyncio.get_running_loop().time() + seconds,
        }
        return Call(**(values | more))

    async def ask(self, call: Call) -> list[Chunk]:
        async with contextlib.aclosing(self.caching.stream(call)) as chunks:
            return [chunk async for chunk in chunks]

    async def said(self, call: Call) -> str:
        return "".join(chunk.text for chunk in await self.ask(call))


@contextlib.asynccontextmanager
async def cached_calls(file: Path, **settings: Any) -> AsyncIterator[CachedCalls]:
    """Open all of it over a migrated SQLite file."""
    database = Database(make_url(f"sqlite+aiosqlite:///{file}"))
    cache = AnswerCache.open(Settings.model_validate({"cache": True} | settings), database)
    async with OpenAIServer() as fake:
        calls = CachedCalls(fake, cache)
        try:
            yield calls
        finally:
            await calls.caching.close()
            await cache.close()
            for provider in calls.providers:
                await provider.close()
            await database.close()
