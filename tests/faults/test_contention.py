"""Many at once: no lock error, no lost number; and other programs that hold the file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.connection import Connection, Reply
from tests.faults.contention import Load, generate_apart
from tests.server import ServerProcess

_CLIENTS, _APPENDS = 50, 20
_MESSAGE = {"role": "user", "content": "said while others speak as well"}


@pytest.fixture
def started(server: ServerProcess) -> ServerProcess:
    server.start()
    return server


async def test_fifty_clients_append_to_one_conversation(tmp_path: Path, own_database_url: str | None) -> None:
    server = ServerProcess(tmp_path / "data", {"DATABASE_URL": own_database_url or "", "LOG_LEVEL": "WARNING"})

    async def append(client: int) -> list[tuple[int, int]]:
        async with Connection(server.url) as connection:
            replies = [
                await connection.request("POST", "/conversations/one/messages", {"role": "user", "content": f"{client}/{n}"})
                for n in range(_APPENDS)
            ]
        return [(reply.status, reply.json()["sequence"]) for reply in replies]

    with server:
        async with Connection(server.url) as connection:
            await connection.request("POST", "/conversations", {"session_id": "one"})
            appended = [item for items in await asyncio.gather(*map(append, range(_CLIENTS))) for item in items]
            kept = [message async for message in _all_messages(connection, "one")]

    assert {status for status, _ in appended} == {201}
    assert sorted(sequence for _, sequence in appended) == list(range(1, _CLIENTS * _APPENDS + 1))
    assert [message["sequence"] for message in kept] == list(range(1, _CLIENTS * _APPENDS + 1))
    said = {client: [m["content"] for m in kept if m["content"].startswith(f"{client}/")] for client in range(_CLIENTS)}
    assert all(said[client] == [f"{client}/{n}" for n in range(_APPENDS)] for client in range(_CLIENTS))


async def test_writers_and_readers_at_once_meet_no_error(started: ServerProcess, *, thorough: bool) -> None:
    load = Load(writers=32, readers=32, seconds=30 if thorough else 4, think_seconds=0.1)

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
    held_seconds = 30 if thorough else 8
    async with Connection(started.url) as connection:
        await connection.request("POST", "/conversations", {"session_id": "one"})
    with _held(started, "EXCLUSIVE") as release:
        until = time.monotonic() + held_seconds
        writing = asyncio.create_task(_append_until(started, until))
        while time.monotonic() < until:
            live = await _get(started, "/health/live")
            listed = await _get(started, "/conversations/one")
            assert (live.status, listed.status) == (200, 200)
            await asyncio.sleep(0.2)
        release()
        refused = await writing

    assert refused
    for reply in refused:
        assert reply.status == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert int(reply.headers["retry-after"]) > 0
        assert reply.json()["code"] == "database_busy"
    assert (await _append(started)).status == 201
    assert (await _get(started, "/conversations/one")).json()["message_count"] == 1


async def test_an_answer_goes_on_while_another_program_holds_the_file(started: ServerProcess) -> None:
    """The model answers through the embedded engine, so that there are tokens to flow for seconds."""
    body = {"message": "Tell me a long story.", "session_id": "story", "stream": True, "options": {"max_tokens": 400}}
    deltas_under_lock = 0
    with contextlib.ExitStack() as held:
        async with Connection(started.url) as connection:
            release = None
            events = []
            async for event in connection.stream("/chat", body):
                events.append(event)
                if len(events) == 5:
                    release = held.enter_context(_held(started, "IMMEDIATE"))
                    asyncio.get_running_loop().call_later(3, release)
                elif release is not None and event.name == "message.delta":
                    deltas_under_lock += 1

    assert deltas_under_lock > 20
    assert events[-1].name == "message.done"
    answer = events[-1].data
    kept = (await _get(started, "/conversations/story/messages")).json()["data"][-1]
    assert kept["content"] == answer["response"] == "".join(e.data["delta"] for e in events[:-1])
    assert kept["status"] in {"complete", "incomplete"}


@contextlib.contextmanager
def _held(server: ServerProcess, how: str) -> Iterator[AsyncIterator[None]]:
    """Hold the file's write lock, as another program would; yields what lets it go early."""
    database = sqlite3.connect(server.data_dir / "ai_lab.sqlite", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA busy_timeout = 5000")
    database.execute(f"BEGIN {how}")
    try:
        yield database.close
    finally:
        database.close()


async def _append(server: ServerProcess) -> Reply:
    async with Connection(server.url) as connection:
        return await connection.request("POST", "/conversations/one/messages", _MESSAGE)


async def _append_until(server: ServerProcess, until: float) -> list[Reply]:
    replies: list[Reply] = []
    while time.monotonic() < until - 6:  # so that every one of them is refused while the lock is held
        replies += await asyncio.gather(*(_append(server) for _ in range(4)))
    return replies


async def _get(server: ServerProcess, path: str) -> Reply:
    async with Connection(server.url) as connection:
        return await connection.request("GET", path)


async def _all_messages(connection: Connection, session_id: str) -> AsyncIterator[dict[str, object]]:
    after = ""
    while True:
        page = (await connection.request("GET", f"/conversations/{session_id}/messages?limit=100{after}")).json()
        for message in page["data"]:
            yield message
        if not page["has_more"]:
            return
        after = f"&after={page['after']}"
