"""How these tests ask the provider."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import LabError
from ai_lab.providers.google import Google
from ai_lab.providers.types import ChatRequest, Chunk, Message
from tests.fakes.google_server import GoogleServer
from tests.security.canary import new_secret

KEY = new_secret("AQ.")
ASKED = ChatRequest("gemini-tiny", [Message("user", "hi")])


async def key() -> str:
    return KEY


async def collect(provider: Google, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: Google, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value


async def sent(
    server: GoogleServer, provider: Google, *messages: Message, model: str = "gemini-tiny", **more: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body that goes out for these messages, and the warnings that come back."""
    chunks = await collect(provider, ChatRequest(model, list(messages) or ASKED.messages, **more))
    return server.requests[-1].json(), chunks[-1].warnings
