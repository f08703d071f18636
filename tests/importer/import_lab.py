"""A source folder, a database, and the import command between them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.engine import make_url

from ai_lab.agents import Agents, AgentState
from ai_lab.conversations import Conversation, Conversations, Message
from ai_lab.database import Database
from ai_lab.importer.command import main

T = TypeVar("T")


@dataclass
class ImportLab:
    """A source folder, a database, and the command between them."""

    source: Path
    url: str
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def write(self, name: str, content: Any) -> Path:
        """Put a file into the source folder: bytes and text as they are, anything else as JSON."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8", newline="")
        return path

    def run(self, *arguments: str) -> int:
        """Run the command on the source folder (unless told otherwise) and return its exit code."""
        has_source = "--source" in arguments or "--from-database" in arguments
        self.capsys.readouterr()
        code = main([*([] if has_source else ["--source", str(self.source)]), *arguments])
        self.out, self.err = self.capsys.readouterr()
        return code

    def report(self, *arguments: str) -> dict[str, Any]:
        """Run the command and return its JSON report."""
        path = self.source.parent / "report.json"
        self.run("--report", str(path), *arguments)
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report

    def messages(self, session_id: str) -> list[Message]:
        async def read(database: Database) -> list[Message]:
            return [message async for message in Conversations(database).all_messages(session_id)]

        return self._ask(read)

    def said(self, session_id: str) -> list[tuple[str, str]]:
        return [(message.role, message.content) for message in self.messages(session_id)]

    def conversation(self, session_id: str) -> Conversation:
        return self._ask(lambda database: Conversations(database).get(session_id))

    def sessions(self) -> set[str]:
        async def read(database: Database) -> set[str]:
            return {conversation.session_id async for conversation in Conversations(database).every()}

        return self._ask(read)

    def states(self, session_id: str) -> list[AgentState]:
        """Return the states of an agent, the oldest first."""

        async def read(database: Database) -> list[AgentState]:
            return (await Agents(database).history(session_id, limit=100)).data[::-1]

        return self._ask(read)

    def fingerprint(self) -> dict[str, tuple[str, int]]:
        """Return hash and time of everything in the source folder, and the times of the folders."""
        return {
            str(path): (
                hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in [self.source, *sorted(self.source.rglob("*"))]
        }

    def _ask(self, question: Callable[[Database], Awaitable[T]]) -> T:
        async def ask() -> T:
            database = Database(make_url(self.url), pooled=False)
            try:
                return await question(database)
            finally:
                await database.close()

        return asyncio.run(ask())
