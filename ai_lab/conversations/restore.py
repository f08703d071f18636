"""Bring exported conversations back, each of them whole or not at all.

What is there already is left as it is: a file imported twice adds nothing. Where another conversation has the same
session_id, the one of the file comes in beside it under a new session_id; the two are never mixed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from ai_lab.clock import new_id, now
from ai_lab.conversations.entries import Damage, Entry, ImportedConversation
from ai_lab.conversations.repository import ConversationRepository
from ai_lab.database import Database

_BATCH = 500  # between two of them other requests have their turn
_DIGEST_LENGTH = 16
_SESSION_ID_LENGTH = 255
#: What two messages have in common when they are the same one.
_SAID = (
    "role",
    "content",
    "thought_process",
    "status",
    "model",
    "provider",
    "finish_reason",
    "usage",
    "timings",
    "error",
    "extra",
    "created_at",
)


class Renamed(BaseModel):
    """A conversation that came in under another session_id, because its own belongs to another conversation."""

    session_id: str
    new_session_id: str


class Failure(BaseModel):
    """A part of the file that was not imported."""

    position: str = Field(description="The line or the entry, counted from 1.")
    reason: str


class ImportReport(BaseModel):
    """What became of each conversation of a file."""

    imported: list[str] = Field(default=[], description="The session_ids of new conversations.")
    skipped: list[str] = Field(default=[], description="The session_ids of those that were there already.")
    renamed: list[Renamed] = []
    failed: list[Failure] = []


async def restore(database: Database, entries: Iterator[Entry]) -> ImportReport:
    """Import the entries of a file, one after the other.

    Raises:
        DatabaseUnavailable: what was not imported by then comes in when the same file is imported again.
    """
    report = ImportReport()
    # A conversation may be as long as the file: it is read in a thread, so that others need not wait for it.
    while entry := await asyncio.to_thread(next, entries, None):
        if isinstance(entry.content, Damage):
            report.failed.append(Failure(position=entry.position, reason=entry.content.reason))
        elif reason := await _import(database, entry.content, report):
            report.failed.append(Failure(position=entry.position, reason=reason))
    return report


async def _import(database: Database, conversation: ImportedConversation, report: ImportReport) -> str | None:
    """Import one conversation; returns why not, where that is so."""
    rows, digest = await asyncio.to_thread(_rows, conversation)
    session_id = conversation.session_id or f"imported-{digest}"
    beside = f"{session_id[: _SESSION_ID_LENGTH - _DIGEST_LENGTH - 1]}-{digest}"
    async with database.transaction() as db:
        repository = ConversationRepository(db)
        for chosen in (session_id, beside):
            if await repository.create(_columns(conversation, chosen)):
                await _add(repository, chosen, rows)
                if chosen == session_id:
                    report.imported.append(chosen)
                else:
                    report.renamed.append(Renamed(session_id=session_id, new_session_id=chosen))
                return None
            if await _holds(repository, chosen, rows):
                report.skipped.append(chosen)
                return None
    return f"There are other conversations {session_id!r} and {beside!r} already."


def _rows(conversation: ImportedConversation) -> tuple[list[dict[str, Any]], str]:
    """Return the columns of the messages, and a short digest of them."""
    rows = [
        message.model_dump(exclude={"sequence", "session_id"}) | {"status": _ended(message.status)}
        for message in conversation.messages
    ]
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
    return rows, digest[:_DIGEST_LENGTH]


def _columns(conversation: ImportedConversation, session_id: str) -> dict[str, Any]:
    known = conversation.model_dump(include={"title", "archived", "local_only", "metadata", "created_at", "updated_at"})
    said = [message.created_at for message in conversation.messages if message.created_at]
    known["created_at"] = conversation.created_at or min(said, default=now())
    known["updated_at"] = conversation.updated_at or max([known["created_at"], *said])
    return known | {"session_id": session_id, "last_sequence": len(conversation.messages)}


async def _add(repository: ConversationRepository, session_id: str, rows: list[dict[str, Any]]) -> None:
    given = [row["message_id"] for row in rows if row["message_id"]]
    are_free = len(set(given)) == len(given)
    for start in range(0, len(given), _BATCH):
        are_free = are_free and not await repository.has_any(given[start : start + _BATCH])
    ids = [row["message_id"] if are_free and row["message_id"] else new_id() for row in rows]
    questions = {row["message_id"]: message_id for row, message_id in zip(rows, ids, strict=True)}
    moment = now()
    for start in range(0, len(rows), _BATCH):
        batch = []
        for sequence, row in enumerate(rows[start : start + _BATCH], start + 1):
            own = {
                "session_id": session_id,
                "sequence": sequence,
                "message_id": ids[sequence - 1],
                "reply_to": questions.get(row["reply_to"]) if row["reply_to"] else None,
                "created_at": row["created_at"] or moment,
                "updated_at": row["created_at"] or moment,
            }
            batch.append(row | own)
        await repository.add(batch)


async def _holds(repository: ConversationRepository, session_id: str, rows: list[dict[str, Any]]) -> bool:
    """Return whether a conversation starts with these messages; it may have gone on since the export."""
    position = 0
    while position < len(rows):
        present = await repository.messages_after(session_id, position, min(_BATCH, len(rows) - position))
        if not present:
            return False
        for row, known in zip(rows[position:], present, strict=False):
            known["status"] = _ended(known["status"])
            if any(row[name] != known[name] for name in _SAID if name != "created_at" or row[name]):
                return False
        position += len(present)
    return True


def _ended(status: str) -> str:
    """Return the status of a message that nobody writes on any more."""
    return "interrupted" if status == "streaming" else status
