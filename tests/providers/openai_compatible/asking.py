"""How these tests ask the provider."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ai_lab.errors import (
    LabError,
)
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.types import ChatRequest, Chunk, Message

KEY = "sk-proj-abcdefghijklmnop-1234567890"
ASKED = ChatRequest("tiny", [Message("user", "hi")])


@contextlib.asynccontextmanager
async def opened(base_url: str, **more: Any) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible("lab", base_url, **more)
    yield made
    await made.close()


async def collect(provider: OpenAICompatible, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: OpenAICompatible, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value
