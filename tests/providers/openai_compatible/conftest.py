from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_lab.providers.openai_compatible import OpenAICompatible
from tests.fakes.openai_server import OpenAIServer
from tests.providers.openai_compatible.asking import KEY


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


@pytest.fixture
async def provider(server: OpenAIServer) -> AsyncIterator[OpenAICompatible]:
    async def key() -> str:
        return KEY

    made = OpenAICompatible("lab", server.base_url, api_key=key, timeout_seconds=60)
    yield made
    await made.close()
