"""How the tests of an adapter ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ai_lab.errors import LabError
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider
from tests.fakes.http_server import FakeServer


@dataclass(frozen=True)
class Asking:
    """Asks one model, ``asked`` where nothing else is said."""

    asked: ChatRequest

    async def collect(self, provider: Provider, request: ChatRequest | None = None) -> list[Chunk]:
        return [chunk async for chunk in provider.stream(request or self.asked)]

    async def failure(self, provider: Provider, request: ChatRequest | None = None) -> LabError:
        with pytest.raises(LabError) as caught:
            await self.collect(provider, request)
        return caught.value

    async def sent(
        self, server: FakeServer, provider: Provider, *messages: Message, model: str | None = None, **more: Any
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the body that goes out for these messages, and the warnings that come back."""
        request = ChatRequest(model or self.asked.model, list(messages) or self.asked.messages, **more)
        chunks = await self.collect(provider, request)
        return server.requests[-1].json(), chunks[-1].warnings
