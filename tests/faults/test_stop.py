"""A server that is told to stop: every open answer is ended, saved and told so, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import psutil
import pytest

from tests.connection import Connection, Event
from tests.fakes.openai_server import CHAT, OpenAIServer, delta, stream_reply
from tests.server import ServerProcess

_LIMIT_SECONDS = 12
_EMBEDDED = "embedded/SmolLM2-135M-Instruct.Q4_1"
_STREAMS = ("hanging/tiny",) * 7 + (_EMBEDDED,) * 3  # one of the engine's waits for a seat


@pytest.fixture
async def hanging_model() -> AsyncIterator[OpenAIServer]:
    """Give a model that says something and then nothing more."""
    async with OpenAIServer() as model:
        model.script(CHAT, stream_reply(delta(content="It was "), 0.02, delta(content="a dark"), ending="hang"))
        yield model


@pytest.fixture
def with_model(server: ServerProcess, hanging_model: OpenAIServer) -> ServerProcess:
    server.settings["AI_LAB_SERVERS"] = json.dumps({"hanging": hanging_model.base_url})
    return server


class _Reader:
    """A client that reads an answer to its end."""

    def __init__(self, url: str, path: str, body: dict[str, Any]) -> None:
        self.events: list[Event] = []
        self.has_begun = asyncio.Event()
        self.reading = asyncio.create_task(self._read(url, path, body))

    def when_begun(self, call: Callable[[], None]) -> None:
        """Call once the first event is there, which may be at once."""
        waiting = asyncio.ensure_future(self.has_begun.wait())
        waiting.add_done_callback(lambda _: call())

    @property
    def text(self) -> str:
        return "".join(event.data["delta"] for event in self.events if event.name == "message.delta")

    async def _read(self, url: str, path: str, body: dict[str, Any]) -> None:
        async with Connection(url) as connection:
            async for event in connection.stream(path, body):
                self.events.append(event)
                self.has_begun.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_open_answers_are_ended_and_kept(with_model: ServerProcess, number: signal.Signals) -> None:
    server = with_model
    await asyncio.to_thread(server.start)
    readers = [_Reader(server.url, "/chat", _question(f"chat-{n}", model)) for n, model in enumerate(_STREAMS)]
    stateless = _Reader(
        server.url,
        "/v1/chat/completions",
        {"model": "hanging/tiny", "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}]},
    )
    whole = asyncio.create_task(_ask_whole(server.url))
    hanging, embedded = [*readers[:7], stateless], readers[7:]
    await asyncio.wait_for(asyncio.gather(*(reader.has_begun.wait() for reader in hanging)), timeout=60)
    seated = asyncio.Semaphore(0)  # whichever two of the three came first
    for reader in embedded:
        reader.when_begun(seated.release)
    for _ in range(2):
        await asyncio.wait_for(seated.acquire(), timeout=60)
    await asyncio.sleep(0.3)  # and goes on being made
    engine = server.children()

    started = time.monotonic()
    server.send_signal(number)
    code = await asyncio.to_thread(server.wait, 60)
    elapsed = time.monotonic() - started
    await asyncio.gather(*(reader.reading for reader in [*readers, stateless]), whole)

    assert code == 0, server.log
    assert elapsed < _LIMIT_SECONDS
    assert [(reader.events[-1].name, reader.events[-1].data["code"]) for reader in readers] == [
        ("error", "server_stopping")
    ] * len(readers)
    assert stateless.events[-1].data["error"]["code"] == "server_stopping"
    assert whole.result() == (503, "server_stopping")
    assert len(engine) == 1
    assert not psutil.pid_exists(engine[0].pid)

    await asyncio.to_thread(server.start)
    async with Connection(server.url) as connection:
        for n, reader in enumerate(readers):
            kept = (await connection.request("GET", f"/conversations/chat-{n}/messages")).json()["data"]
            assert [message["role"] for message in kept] == ["user", "assistant"]
            assert (kept[1]["status"], kept[1]["content"]) == ("interrupted", reader.text)
    assert _count_streaming(server) == 0
    assert "left unfinished" not in server.log, "the answers were saved by the start after and not by the stop"


async def test_a_second_signal_hurries_and_loses_nothing(with_model: ServerProcess) -> None:
    server = with_model
    await asyncio.to_thread(server.start)
    reader = _Reader(server.url, "/chat", _question("one", "hanging/tiny"))
    await asyncio.wait_for(reader.has_begun.wait(), timeout=30)

    server.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.02)
    server.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(server.wait, 60)
    await asyncio.wait({reader.reading})

    assert code == 0, server.log
    assert _count_streaming(server) == 0
    assert _statuses(server) == ["complete", "interrupted"]


async def test_a_stop_while_the_engine_loads(server: ServerProcess) -> None:
    await asyncio.to_thread(server.start)
    reader = _Reader(server.url, "/chat", _question("one", _EMBEDDED))
    engine = await asyncio.to_thread(_first_children, server)

    started = time.monotonic()
    code = await asyncio.to_thread(server.stop, 60)
    elapsed = time.monotonic() - started
    await asyncio.wait({reader.reading})

    assert code == 0, server.log
    assert elapsed < _LIMIT_SECONDS
    assert reader.events[-1].data["code"] == "server_stopping"
    assert not psutil.wait_procs(engine, timeout=30)[1]  # one that is loading may end a moment after its parent
    assert _statuses(server) == ["complete", "interrupted"]


async def test_an_answer_that_begins_during_the_stop_is_ended_as_well(with_model: ServerProcess) -> None:
    server = with_model
    await asyncio.to_thread(server.start)
    with closing(sqlite3.connect(server.data_dir / "ai_lab.sqlite", isolation_level=None)) as other_program:
        other_program.execute("BEGIN IMMEDIATE")
        reader = _Reader(server.url, "/chat", _question("one", "hanging/tiny"))
        await asyncio.sleep(1)
        server.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)

    code = await asyncio.to_thread(server.wait, 60)
    await asyncio.wait({reader.reading})

    assert code == 0, server.log
    assert [event.data["code"] for event in reader.events if event.name == "error"] == ["server_stopping"]
    assert _statuses(server) == ["complete", "interrupted"]


@pytest.mark.thorough  # it takes the ten seconds that the server waits for the client
async def test_a_client_that_does_not_read_holds_nothing_up(
    with_model: ServerProcess, hanging_model: OpenAIServer
) -> None:
    server = with_model
    flood = [delta(content="water " * 10_000) for _ in range(400)]
    hanging_model.script(CHAT, stream_reply(*flood, ending="hang"))
    await asyncio.to_thread(server.start)
    async with Connection(server.url) as connection:
        events = connection.stream("/chat", _question("one", "hanging/tiny"))
        first = await anext(events)
        await asyncio.sleep(2)  # until nothing more fits into the sockets between

        started = time.monotonic()
        code = await asyncio.to_thread(server.stop, 60)
        elapsed = time.monotonic() - started

        assert first.name == "message.delta"
        assert code == 0, server.log
        assert elapsed < _LIMIT_SECONDS
        assert _statuses(server) == ["complete", "interrupted"]


def _first_children(server: ServerProcess) -> list[psutil.Process]:
    while not (children := server.children()):
        time.sleep(0.01)
    return children


def _question(session_id: str, model: str) -> dict[str, Any]:
    options = {"max_tokens": 2000}
    message = "Tell me a very long story about a lighthouse."
    return {"message": message, "session_id": session_id, "model": model, "stream": True, "options": options}


async def _ask_whole(url: str) -> tuple[int, str]:
    async with Connection(url) as connection:
        body = _question("whole", "hanging/tiny") | {"stream": False}
        reply = await connection.request("POST", "/chat", body)
        return reply.status, reply.json()["code"]


def _statuses(server: ServerProcess) -> list[str]:
    with closing(sqlite3.connect(server.data_dir / "ai_lab.sqlite")) as db:
        return [status for (status,) in db.execute("SELECT status FROM messages ORDER BY session_id, sequence")]


def _count_streaming(server: ServerProcess) -> int:
    return _statuses(server).count("streaming")
