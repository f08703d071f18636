"""Many at once: no lock error, no lost number; and other programs that hold the file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.connection import Connection, Reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply
from tests.faults.contention import Load, generate_apart
from tests.server import ServerProcess

_CLIENTS = 50
_MESSAGE = {"role": "user", "content": "said while others speak as well"}
_TURN = {"message": "Tell me a story.", "session_id": "story", "model": "slow/tiny", "stream": True}


@pytest.fixture
def started(server: ServerProcess) -> ServerProcess:
    server.start()
    return server


async def test_fifty_clients_append_to_one_conversation(
    tmp_path: Path, own_database_url: str | None, *, thorough: bool
) -> None:
    appends = 20 if thorough else 6
    settings = {"DATABASE_URL": own_database_url or "", "LOG_LEVEL": "WARNING", "AI_LAB_RATE_LIMITS": "false"}
    server = ServerProcess(tmp_path / "data", settings)

    async def append(client: int) -> list[tuple[int, int]]:
        async with Connection(server.url) as connection:
            replies = [await _said(connection, f"{client}/{n}") for n in range(appends)]
        return [(reply.status, reply.json()["sequence"]) for reply in replies]

    with server:
        async with Connection(server.url) as connection:
            await connection.request("POST", "/conversations", {"session_id": "one"})
            appended = [item for items in await asyncio.gather(*map(append, range(_CLIENTS))) for item in items]
            kept = [message async for message in _all_messages(connection, "one")]

    assert {status for status, _ in appended} == {201}
    assert sorted(sequence for _, sequence in appended) == list(range(1, _CLIENTS * appends + 1))
    assert [message["sequence"] for message in kept] == list(range(1, _CLIENTS * appends + 1))
    said = {client: [m["content"] for m in kept if m["content"].startswith(f"{client}/")] for client in range(_CLIENTS)}
    assert all(said[client] == [f"{client}/{n}" for n in range(appends)] for client in range(_CLIENTS))


async def test_writers_and_readers_at_once_meet_no_error(started: ServerProcess, *, thorough: bool) -> None:
    many = 32 if thorough else 12
    load = Load(writers=many, readers=many, seconds=30 if thorough else 3, think_seconds=0.1)

    seen = await generate_apart(started.url, load)

    assert seen.errors == []
    assert len(seen.write_ms) > load.writers
    assert len(seen.read_ms) > load.readers


async def test_requests_wait_for_another_program_that_holds_the_file(started: ServerProcess) -> None:
    async with Connection(started.url) as connection:
        await connection.request("POST", "/conversations", {"session_id": "one"})
    with _held(started, "IMMEDIATE") as release:
        waiting = [asyncio.create_task(_append(started)) for _ in range(8)]
        _, pending = await asyncio.wait(waiting, timeout=3)
        assert len(pending) == len(waiting), "an append was answered while another program held the lock"
        release()
        replies = await asyncio.gather(*waiting)

    assert [reply.status for reply in replies] == [201] * 8
    assert sorted(reply.json()["sequence"] for reply in replies) == list(range(1, 9))


@pytest.mark.timeout(120)
async def test_a_long_lock_is_answered_with_503_and_ends_by_itself(started: ServerProcess, *, thorough: bool) -> None:
    async with Connection(started.url) as connection:
        await connection.request("POST", "/conversations", {"session_id": "one"})
    with _held(started, "EXCLUSIVE") as release:
        writing = asyncio.create_task(_append_again_and_again(started, 5 if thorough else 1))
        while not writing.done():
            live = await _get(started, "/health/live")
            listed = await _get(started, "/conversations/one")
            assert (live.status, listed.status) == (200, 200)
            await asyncio.sleep(0.2)
        release()

    for reply in writing.result():
        assert reply.status == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert int(reply.headers["retry-after"]) > 0
        assert reply.json()["code"] == "database_busy"
    assert (await _append(started)).status == 201
    assert (await _get(started, "/conversations/one")).json()["message_count"] == 1


async def test_an_answer_goes_on_while_another_program_holds_the_file(server: ServerProcess) -> None:
    async with _slow_model(server, pieces=40), Connection(server.url) as connection:
        await asyncio.to_thread(server.start)
        events, under_lock = [], 0
        with contextlib.ExitStack() as locks:
            async for event in connection.stream("/chat", _TURN):
                events.append(event)
                if len(events) == 3:
                    release = locks.enter_context(_held(server, "IMMEDIATE"))
                    asyncio.get_running_loop().call_later(3, release)
                under_lock += len(events) > 3 and event.name == "message.delta"
        kept = (await connection.request("GET", "/conversations/story/messages")).json()["data"][-1]

    assert under_lock > 20, "no pieces came while the lock was held"
    assert events[-1].name == "message.done"
    text = "".join(event.data["delta"] for event in events[:-1])
    assert (kept["status"], kept["content"], events[-1].data["response"]) == ("complete", text, text)


async def test_an_answer_whose_end_meets_a_long_lock_is_saved_afterwards(server: ServerProcess) -> None:
    async with _slow_model(server, pieces=4), Connection(server.url) as connection:
        await asyncio.to_thread(server.start)
        events = []
        with contextlib.ExitStack() as locks:
            async for event in connection.stream("/chat", _TURN):
                events.append(event)
                if len(events) == 1:
                    locks.enter_context(_held(server, "IMMEDIATE"))
        assert (events[-1].name, events[-1].data["code"]) == ("error", "database_busy")
        text = "".join(event.data["delta"] for event in events[:-1])

        async with asyncio.timeout(30):
            while True:
                kept = (await connection.request("GET", "/conversations/story/messages")).json()["data"][-1]
                if kept["status"] != "streaming":
                    break
                await asyncio.sleep(0.1)

    assert (kept["status"], kept["content"]) == ("complete", text)


@contextlib.asynccontextmanager
async def _slow_model(server: ServerProcess, *, pieces: int) -> AsyncIterator[None]:
    """Give the server a model that says ten pieces in a second."""
    async with OpenAIServer() as model:
        parts = [part for number in range(pieces) for part in (delta(content=f"piece {number} "), 0.1)]
        model.script(CHAT, stream_reply(*parts, delta("stop"), DONE))
        server.settings["AI_LAB_SERVERS"] = json.dumps({"slow": model.base_url})
        yield


@contextlib.contextmanager
def _held(server: ServerProcess, how: str) -> Iterator[Callable[[], None]]:
    """Hold the file's write lock, as another program would; yields what lets it go early."""
    database = sqlite3.connect(server.data_dir / "ai_lab.sqlite", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA busy_timeout = 5000")
    database.execute(f"BEGIN {how}")
    try:
        yield database.close
    finally:
        database.close()


async def _said(connection: Connection, content: str) -> Reply:
    """Append, and again where a busy machine keeps one of so many waiting for too long."""
    for _ in range(3):
        reply = await connection.request("POST", "/conversations/one/messages", {"role": "user", "content": content})
        if reply.status != 503:
            break
    return reply


async def _append(server: ServerProcess) -> Reply:
    async with Connection(server.url) as connection:
        return await connection.request("POST", "/conversations/one/messages", _MESSAGE)


async def _append_again_and_again(server: ServerProcess, times: int) -> list[Reply]:
    return [reply for _ in range(times) for reply in await asyncio.gather(*(_append(server) for _ in range(4)))]


async def _get(server: ServerProcess, path: str) -> Reply:
    async with Connection(server.url) as connection:
        return await connection.request("GET", path)


async def _all_messages(connection: Connection, session_id: str) -> AsyncIterator[dict[str, Any]]:
    after = ""
    while True:
        page = (await connection.request("GET", f"/conversations/{session_id}/messages?limit=100{after}")).json()
        for message in page["data"]:
            yield message
        if not page["has_more"]:
            return
        after = f"&after={page['after']}"
