"""A request that is cancelled just after connecting; httpx by itself leaves some of these connections open for ever."""

import asyncio
import random
from typing import Any

import pytest

from ai_lab.providers.ollama import Ollama
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.types import ChatRequest, Message
from tests.fakes.http_server import FakeServer, Reply
from tests.fakes.ollama_server import OllamaServer
from tests.fakes.openai_server import CHAT, OpenAIServer

REQUEST = ChatRequest("tiny", [Message("user", "x")])


async def cancel_early(provider: Any, times: int) -> None:
    async def ask() -> None:
        async for _ in provider.stream(REQUEST):
            pass

    for _ in range(times):
        tasks = [asyncio.create_task(ask()) for _ in range(5)]
        await asyncio.sleep(random.random() * 0.004)  # noqa: S311 - a moment, not a secret
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.2)


@pytest.mark.parametrize("kind", ["openai", "ollama"])
async def test_no_connection_stays_behind(kind: str) -> None:
    server: FakeServer = OpenAIServer() if kind == "openai" else OllamaServer()
    async with server:
        server.script(CHAT if kind == "openai" else "/api/chat", Reply(ending="hang"))
        provider: Any
        if kind == "openai":
            provider = OpenAICompatible("fake", f"{server.origin}/v1", timeout_seconds=30)
        else:
            provider = Ollama("ollama", server.origin, context_tokens=4096, timeout_seconds=30)
        await cancel_early(provider, 60)
        assert server.open_connections == 0
        await provider.close()
