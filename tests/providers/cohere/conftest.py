from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_lab.providers.cohere import Cohere
from tests.fakes.cohere_server import CohereServer
from tests.providers.cohere.asking import key


@pytest.fixture
async def server() -> AsyncIterator[CohereServer]:
    async with CohereServer() as running:
        yield running


@pytest.fixture
async def provider(server: CohereServer) -> AsyncIterator[Cohere]:
    made = Cohere("cohere", server.origin, api_key=key, timeout_seconds=60)
    yield made
    await made.close()
