"""How these tests ask the provider."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import LabError
from ai_lab.providers.anthropic import Anthropic
from ai_lab.providers.types import ChatRequest, Chunk, Message
from tests.fakes.anthropic_server import MESSAGES, AnthropicServer
from tests.security.canary import new_secret

KEY = new_secret("sk-ant-api03-")
ASKED = ChatRequest("claude-tiny", [Message("user", "hi")])


async def key() -> str:
    return KEY


async def collect(provider: Anthropic, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: Anthropic, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value


async def sent(
    server: AnthropicServer, provider: Anthropic, *messages: Message, **more: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body that goes out for these messages, and the warnings that come back."""
    chunks = await collect(provider, ChatRequest("claude-tiny", list(messages) or ASKED.messages, **more))
    return server.received(MESSAGES)[-1].json(), chunks[-1].warnings
