"""Kill a server under load at a random moment, start it again, and look for what it had acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests.connection import Connection
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply, usage
from tests.server import ServerProcess

#: The answer of the slow model, 8 pieces in about 0.6 s.
SLOW_PIECES = tuple(f"piece {number} " for number in range(8))
_LOAD_SECONDS = (0.05, 1.0)
_NUMBERED = "session_id, sequence, message_id, role, content, status"


@dataclass
class Acknowledged:
    """What clients were told is saved."""

    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    states: dict[tuple[str, int], str] = field(default_factory=dict)
    questions: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def has_all_kinds(self) -> bool:
        return bool(self.messages and self.answers and self.states and self.questions)

    def __len__(self) -> int:
        return len(self.messages) + len(self.answers) + len(self.states) + len(self.questions)


@dataclass
class KillReport:
    """The sum of all rounds; ``faults`` must be empty."""

    rounds: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    partial_answers: int = 0
    ready_seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class KillRounds:
    """Rounds over one database, so that each one builds on what the ones before have left.

    Args:
        folder: for the data directory.
        database_url: of a fresh Postgres database; None means SQLite in the data directory.
    """

    def __init__(self, folder: Path, database_url: str | None, *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - for moments, not for secrets
        self._database_url = database_url
        self._data_dir = folder / "data"
        self.report = KillReport()

    async def run(self, rounds: int) -> KillReport:
        """Start, load, kill and check ``rounds`` times, and check once more after the last start."""
        async with OpenAIServer() as model:
            model.script(CHAT, _slow_reply())
            settings = {"AI_LAB_SERVERS": json.dumps({"slow": model.base_url}), "LOG_LEVEL": "WARNING"}
            settings["AI_LAB_RATE_LIMITS"] = "false"  # the writers are to write as fast as they can
            if self._database_url:
                settings["DATABASE_URL"] = self._database_url
            server = ServerProcess(self._data_dir, settings)
            told = Acknowledged()
            try:
                await asyncio.to_thread(server.start)
                await self._create_conversations(server)
                for number in range(rounds):
                    told = await self._load_and_kill(server, number)
                    self._count(told)
                    self.report.ready_seconds.append(await asyncio.to_thread(server.start))
                    await self._check(told, number)
                    self.report.rounds += 1
                await self._check_over_http(server, told)
            finally:
                server.kill()
        return self.report

    async def _create_conversations(self, server: ServerProcess) -> None:
        async with Connection(server.url) as connection:
            for session_id in ("shared-0", "shared-1"):
                reply = await connection.request("POST", "/conversations", {"session_id": session_id})
                assert reply.status == 201, reply

    async def _load_and_kill(self, server: ServerProcess, number: int) -> Acknowledged:
        told = Acknowledged()
        writers: list[Callable[[Connection, str], Awaitable[None]]] = [
            *(self._append(told, f"shared-{which % 2}") for which in range(4)),
            *(self._save_states(told, f"agent-{which}") for which in range(2)),
            self._chat(told, f"echo-{number}", "echo/echo"),
            self._chat(told, f"slow-{number}", "slow/tiny"),
        ]
        tasks = [
            asyncio.create_task(_until_cut(server.url, write, f"{number}.{which}"))
            for which, write in enumerate(writers)
        ]
        await asyncio.sleep(self._random.uniform(*_LOAD_SECONDS))
        if number == 0:
            await _until_told(told, tasks)
        server.kill()
        for errors in await asyncio.gather(*tasks):
            self.report.faults += [f"round {number}: {error}" for error in errors]
        return told

    def _append(self, told: Acknowledged, session_id: str) -> Callable[[Connection, str], Awaitable[None]]:
        async def write(connection: Connection, content: str) -> None:
            body = {"role": "user", "content": content}
            reply = await connection.request("POST", f"/conversations/{session_id}/messages", body)
            assert reply.status == 201, f"append answered {reply.status}: {reply.body!r}"
            message = reply.json()
            told.messages[message["message_id"]] = message

        return write

    def _save_states(self, told: Acknowledged, session_id: str) -> Callable[[Connection, str], Awaitable[None]]:
        async def write(connection: Connection, content: str) -> None:
            body = {"message": content, "status": "working", "data": {"step": content}}
            reply = await connection.request("PUT", f"/agents/{session_id}/state", body)
            assert reply.status == 200, f"state answered {reply.status}: {reply.body!r}"
            told.states[session_id, reply.json()["sequence"]] = content

        return write

    def _chat(self, told: Acknowledged, session_id: str, model: str) -> Callable[[Connection, str], Awaitable[None]]:
        async def write(connection: Connection, content: str) -> None:
            body = {"message": content, "session_id": session_id, "model": model, "stream": True}
            async for event in connection.stream("/chat", body):
                if event.name == "message.delta":  # the question was saved before the model was asked
                    told.questions[event.data["message_id"]] = (session_id, content)
                elif event.name == "message.done":
                    told.answers[event.data["message_id"]] = event.data["response"]
                else:
                    raise AssertionError(f"chat answered {event}")

        return write

    def _count(self, told: Acknowledged) -> None:
        for name in ("messages", "states", "questions", "answers"):
            self.report.acknowledged[name] += len(getattr(told, name))

    async def _check(self, told: Acknowledged, number: int) -> None:
        rows = {row["message_id"]: row for row in await self._rows(f"SELECT {_NUMBERED}, reply_to FROM messages")}  # noqa: S608 - a constant
        states = await self._rows("SELECT session_id, sequence, message FROM agent_states")
        faults = [*_missing(told, rows, states), *_numbering(rows.values()), *_numbering(states)]
        faults += [f"{row['message_id']} is still streaming" for row in rows.values() if row["status"] == "streaming"]
        self.report.partial_answers = sum(row["status"] == "interrupted" for row in rows.values())
        counters = await self._rows("SELECT session_id, last_sequence FROM conversations")
        counts = Counter(row["session_id"] for row in rows.values())
        faults += [
            f"{c['session_id']} counts {c['last_sequence']} messages and has {counts[c['session_id']]}"
            for c in counters
            if c["last_sequence"] != counts[c["session_id"]]
        ]
        if self._database_url is None:
            faults += _sqlite_faults(self._data_dir / "ai_lab.sqlite")
        self.report.faults += [f"round {number}: {fault}" for fault in faults]

    async def _check_over_http(self, server: ServerProcess, told: Acknowledged) -> None:
        """See once that the server itself shows what the tables hold."""
        seen: list[int] = []
        async with Connection(server.url) as connection:
            after = ""
            while True:
                page = (await connection.request("GET", f"/conversations/shared-0/messages?limit=100{after}")).json()
                seen += [message["sequence"] for message in page["data"]]
                for message in page["data"]:
                    told.messages.pop(message["message_id"], None)
                if not page["has_more"]:
                    break
                after = f"&after={page['after']}"
        lost = [message for message in told.messages.values() if message["session_id"] == "shared-0"]
        if lost or seen != list(range(1, len(seen) + 1)):
            self.report.faults.append(f"over HTTP {len(lost)} messages are missing, {len(seen)} are there")

    async def _rows(self, statement: str) -> list[dict[str, Any]]:
        if self._database_url is None:
            with contextlib.closing(sqlite3.connect(self._data_dir / "ai_lab.sqlite", timeout=5)) as db:
                db.row_factory = sqlite3.Row
                return [dict(row) for row in db.execute(statement)]
        connection = await asyncpg.connect(self._database_url.replace("+asyncpg", ""))
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()


async def _until_told(told: Acknowledged, tasks: list[asyncio.Task[list[str]]]) -> None:
    """Wait for something of each kind, which takes a busy machine longer, or for the end of all that is asked."""
    while not (told.has_all_kinds or all(task.done() for task in tasks)):  # noqa: ASYNC110 - clients tell nobody
        await asyncio.sleep(0.01)


async def _until_cut(url: str, write: Callable[[Connection, str], Awaitable[None]], name: str) -> list[str]:
    """Write until the server is gone; returns what went wrong before that."""
    async with Connection(url) as connection:
        try:
            for number in itertools.count():
                await write(connection, f"{name}.{number}")
        except OSError:
            return []
        except AssertionError as error:
            return [str(error)]
    return []


def _missing(told: Acknowledged, rows: dict[str, dict[str, Any]], states: list[dict[str, Any]]) -> list[str]:
    faults = []
    for message_id, message in told.messages.items():
        row = rows.get(message_id)
        if row is None or any(row[name] != message[name] for name in ("session_id", "sequence", "role", "content")):
            faults.append(f"message {message_id} was acknowledged and is {row}")
    for message_id, (session_id, content) in told.questions.items():
        question = rows.get(rows[message_id]["reply_to"]) if message_id in rows else None
        if question is None or (question["session_id"], question["content"]) != (session_id, content):
            faults.append(f"question {content!r} had an answer coming and is {question}")
        elif not _is_part_of_answer(rows[message_id]):
            faults.append(f"answer {message_id} is {rows[message_id]}")
    for message_id, text in told.answers.items():
        row = rows.get(message_id)
        if row is None or (row["content"], row["status"]) != (text, "complete"):
            faults.append(f"answer {message_id} was done and is {row}")
    kept = {(state["session_id"], state["sequence"]): state["message"] for state in states}
    faults += [
        f"state {key} was acknowledged and is missing" for key, text in told.states.items() if kept.get(key) != text
    ]
    return faults


def _is_part_of_answer(row: dict[str, Any]) -> bool:
    if row["status"] == "complete":
        return True
    return row["status"] == "interrupted" and (
        "".join(SLOW_PIECES).startswith(row["content"]) or row["session_id"].startswith("echo-")
    )


def _numbering(rows: Any) -> list[str]:
    """Return which conversations do not count 1, 2, 3 …"""
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["session_id"], []).append(row["sequence"])
    return [
        f"{session_id} has the numbers {sorted(found)}"
        for session_id, found in numbers.items()
        if sorted(found) != list(range(1, len(found) + 1))
    ]


def _sqlite_faults(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
        verdicts = [row[0] for row in db.execute("PRAGMA integrity_check")]
        foreign = db.execute("PRAGMA foreign_key_check").fetchall()
        try:
            db.execute("INSERT INTO message_search(message_search, rank) VALUES('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            verdicts.append(f"search index: {error}")
    return [*(verdict for verdict in verdicts if verdict != "ok"), *(f"foreign key {row}" for row in foreign)]


def _slow_reply() -> Any:
    parts: list[bytes | float] = []
    for piece in SLOW_PIECES:
        parts += [delta(content=piece), 0.08]
    return stream_reply(*parts, delta("stop"), usage(5, len(SLOW_PIECES)), DONE)
