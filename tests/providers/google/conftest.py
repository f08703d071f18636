from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_lab.providers.google import Google
from tests.fakes.google_server import GoogleServer
from tests.providers.google.asking import key


@pytest.fixture
async def server() -> AsyncIterator[GoogleServer]:
    async with GoogleServer() as running:
        yield running


@pytest.fixture
async def provider(server: GoogleServer) -> AsyncIterator[Google]:
    made = Google("google", server.origin, api_key=key, timeout_seconds=60)
    yield made
    await made.close()
