from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_lab.providers.anthropic import Anthropic
from tests.fakes.anthropic_server import AnthropicServer
from tests.providers.anthropic.asking import key


@pytest.fixture
async def server() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer() as running:
        yield running


@pytest.fixture
async def provider(server: AnthropicServer) -> AsyncIterator[Anthropic]:
    made = Anthropic("anthropic", server.origin, api_key=key, timeout_seconds=60)
    yield made
    await made.close()
