"""How these tests ask the provider."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ai_lab.errors import (
    LabError,
)
from ai_lab.providers.ollama import Ollama
from ai_lab.providers.types import ChatRequest, Chunk, Message
from tests.fakes.ollama_server import CHAT, OllamaServer

ASKED = ChatRequest("tiny", [Message("user", "hi")])


@contextlib.asynccontextmanager
async def opened(
    host: str, *, context_tokens: int = 4096, timeout_seconds: float = 5, **more: Any
) -> AsyncIterator[Ollama]:
    made = Ollama("ollama", host, context_tokens=context_tokens, timeout_seconds=timeout_seconds, **more)
    yield made
    await made.close()


async def collect(provider: Ollama, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: Ollama, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value


def sent(server: OllamaServer) -> Any:
    return server.received(CHAT)[-1].json()
