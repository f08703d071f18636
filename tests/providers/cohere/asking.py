"""How these tests ask the provider."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import LabError
from ai_lab.providers.cohere import Cohere
from ai_lab.providers.types import ChatRequest, Chunk, Message
from tests.fakes.cohere_server import CHAT, CohereServer
from tests.security.canary import new_secret

KEY = new_secret("")
ASKED = ChatRequest("command-tiny", [Message("user", "hi")])


async def key() -> str:
    return KEY


async def collect(provider: Cohere, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: Cohere, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value


async def sent(
    server: CohereServer, provider: Cohere, *messages: Message, **more: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body that goes out for these messages, and the warnings that come back."""
    chunks = await collect(provider, ChatRequest("command-tiny", list(messages) or ASKED.messages, **more))
    return server.received(CHAT)[-1].json(), chunks[-1].warnings
