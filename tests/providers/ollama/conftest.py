from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_lab.providers.ollama import Ollama
from tests.fakes.ollama_server import OllamaServer
from tests.providers.ollama.asking import opened


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer() as running:
        yield running


@pytest.fixture
async def provider(server: OllamaServer) -> AsyncIterator[Ollama]:
    async with opened(server.base_url) as made:
        yield made
