from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Self

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fakes.http_server import ReceivedRequest, Reply
from tests.fakes.openai_server import CHAT, OpenAIServer
from tests.server import ServerProcess, free_port

EMBEDDINGS = "/v1/embeddings"


class Upstream:
    """A fake service in a thread of its own, so that a blocking client can be used beside it."""

    def __init__(self) -> None:
        self.server = OpenAIServer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self.server.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.server.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(15)

    def script(self, *replies: Reply) -> None:
        self.server.script(CHAT, *replies)

    def last_chat(self) -> ReceivedRequest:
        return self.server.received(CHAT)[-1]

    def wait_until_left(self, seconds: float) -> None:
        """Wait until the newest request's client has gone."""
        self.run(asyncio.wait_for(self.server.requests[-1].disconnected.wait(), seconds))


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def server(upstream_server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    servers = {"fake": upstream_server.server.base_url, "down": f"http://127.0.0.1:{free_port()}/v1"}
    settings = {
        "AI_LAB_DEFAULT_MODEL": "echo/echo",
        "AI_LAB_SERVERS": json.dumps(servers),
        "AI_LAB_RETRY_WAIT_SECONDS": "0.01",
        "AI_LAB_BREAKER_FAILURES": "1000",  # the tests share the server, and what they ask fails often
    }
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", settings) as running:
        yield running
        running.stop()


@pytest.fixture
def upstream(upstream_server: Upstream) -> Upstream:
    """The service ``fake`` with its usual answers and no requests yet."""
    for path in (CHAT, EMBEDDINGS):
        upstream_server.server.script(path)
    upstream_server.server.requests.clear()
    return upstream_server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(server: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made
