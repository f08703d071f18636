"""What every format is turned into: sources of records, and the fields of a message or an agent state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ai_lab.conversations.schemas import known_role
from ai_lab.errors import SourceDamaged
from ai_lab.importer.cleaning import Cleaner
from ai_lab.importer.text_file import Watcher

Holds = Literal["messages", "states"]
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_TIMES = ("timestamp", "created_at", "create_time", "time", "date")
_THOUGHTS = ("thought_process", "reasoning_content", "reasoning")
_STATUSES = frozenset({"complete", "incomplete", "interrupted", "failed"})
# AI Lab's own exports: places in a database that the import assigns anew.
_OWN_MESSAGE, _OWN_STATE = frozenset({"message_id", "sequence"}), frozenset({"state_id", "sequence"})
_OWN_CONVERSATION = frozenset({"session_id", "message_count", "created_at", "updated_at"})
_ASSIGNED_ANEW = ("message_id", "state_id", "session_id", "sequence", "updated_at", "message_count", "reply_to")
_OWN_TEXTS = {"model": 255, "provider": 64, "finish_reason": 32}
_OWN_OBJECTS = ("usage", "timings", "error")
_STATUS_LENGTH = 255
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One message or state: its columns, when it was said (None: unknown), and what had to be changed."""

    values: dict[str, Any]
    moment: datetime | None = None
    remarks: tuple[str, ...] = ()

    def digest(self) -> bytes:
        """Return SHA-256 over what the record says; piece by piece, because a text may be large."""
        said = hashlib.sha256(str(self.moment and self.moment.isoformat()).encode())
        for name, value in sorted(self.values.items()):
            is_text = isinstance(value, str)
            said.update(json.dumps([name, len(value) if is_text else value], sort_keys=True).encode())
            for start in range(0, len(value) if is_text else 0, _PIECE):
                said.update(value[start : start + _PIECE].encode())
        return said.digest()


#: Read once; close it when leaving early.
Records = Generator[Record, None, None]


@dataclass
class Source:
    """One conversation, or the states of one agent, as it can be read from a source, more than once.

    ``header`` (see ``describe``) may only be filled once ``read`` has come to its end. ``written_at`` stands in where
    no record says when it was said.
    """

    holds: Holds
    session_id: str
    origin: str
    read: Callable[[], Records]
    header: dict[str, Any] = field(default_factory=dict)
    written_at: datetime | None = None


@dataclass(frozen=True)
class Input:
    """One file to import: what it is and how to read its sources."""

    path: Path
    kind: str
    sources: Callable[[Watcher], Iterable[Source | SourceDamaged]]


def message_record(fields: dict[str, Any]) -> Record:
    """Return a message from the fields of any of the formats; what has no column of its own is kept in ``extra``.

    Raises:
        ValueError: the fields cannot be kept.
    """
    clean, left = Cleaner(), dict(fields)
    is_own = left.keys() >= _OWN_MESSAGE
    extra: dict[str, Any] = {}
    values: dict[str, Any] = {"role": _take_role(left, extra, clean)}
    moment = _take_moment(left, clean)
    values["content"] = _take_content(left, extra, clean)
    values["thought_process"] = _take_thoughts(left, clean)
    _take_texts(left, values, ("model",) if not is_own else tuple(_OWN_TEXTS), clean)
    if is_own:
        values["status"] = status if (status := left.pop("status", None)) in _STATUSES else "interrupted"
        for name in _OWN_OBJECTS:
            if isinstance(left.get(name), dict | None):
                values[name] = clean.json(left.pop(name, None))
        _drop_assigned(left)
        if isinstance(left.get("extra"), dict | None):
            extra = clean.json(left.pop("extra", None) or {}) | extra
    extra |= clean.json(left)
    values["extra"] = extra or None
    return Record(values, moment, tuple(clean.remarks))


def state_record(fields: dict[str, Any]) -> Record:
    """Return an agent state; what has no column of its own is kept in ``data``. Raises as ``message_record`` does."""
    clean, left = Cleaner(), dict(fields)
    if left.keys() >= _OWN_STATE:
        _drop_assigned(left)
    moment = _take_moment(left, clean)
    values: dict[str, Any] = {
        name: clean.as_text(left.pop(name, None)) for name in ("message", "status", "feedback", "thought_process")
    }
    data = clean.json(left.pop("data")) if isinstance(left.get("data"), dict) else {}
    data |= clean.json(left)
    if len(values["status"]) > _STATUS_LENGTH:
        data["status"] = values["status"]
        values["status"] = values["status"][:_STATUS_LENGTH]
        clean.remarks.append(f"a status of more than {_STATUS_LENGTH} characters was cut; the whole one is in data")
    values["data"] = data or None
    return Record(values, moment, tuple(clean.remarks))


def describe(header: dict[str, Any], fields: dict[str, Any]) -> None:
    """Put what a file says about its conversation into ``header``; what has no column of its own is metadata.

    Raises:
        ValueError: the fields cannot be kept.
    """
    clean, left = Cleaner(), dict(fields)
    title = left.pop("title", None)
    metadata: dict[str, Any] = {}
    if left.keys() >= _OWN_CONVERSATION:
        kept = left.pop("metadata", None)
        metadata = clean.json(kept) if isinstance(kept, dict) else {}
        _drop_assigned(left)
    header["created_at"] = _take_moment(left, clean)
    header["local_only"] = left.pop("local_only", None) is True
    header["archived"] = left.pop("archived", None) is True
    header["title"] = clean.text(title) if isinstance(title, str) else None
    header["metadata"] = metadata | clean.json({name: value for name, value in left.items() if value is not None})


def _take_role(left: dict[str, Any], extra: dict[str, Any], clean: Cleaner) -> str:
    spelling = left.pop("role", None)
    if not spelling:
        clean.remarks.append("a message without a role was taken as the user's")
        return "user"
    spelling = clean.as_text(spelling)
    role = known_role(spelling)
    role = role if role in _ROLES else "assistant"
    if role != spelling:
        extra["role"] = spelling
    return str(role)


def _take_moment(left: dict[str, Any], clean: Cleaner) -> datetime | None:
    for name in _TIMES:
        value = left.pop(name, None)
        if value is None:
            continue
        before = len(clean.remarks)
        moment = clean.moment(value)
        if len(clean.remarks) > before:
            left[name] = value  # what cannot be read stays among the other fields
        return moment
    return None


def _take_content(left: dict[str, Any], extra: dict[str, Any], clean: Cleaner) -> str:
    name = next((name for name in ("content", "message") if left.get(name) is not None), None)
    if name is None:
        found = left.keys() & {"content", "message"}
        if not found:
            clean.remarks.append("a message without content")
        for empty in found:
            del left[empty]
        return ""
    content = left.pop(name)
    if isinstance(content, list):
        return _take_parts(content, extra, clean)
    return clean.as_text(content)


def _take_parts(parts: list[Any], extra: dict[str, Any], clean: Cleaner) -> str:
    """Return the text of a message of several parts; the other parts (images, files) go to ``extra``."""
    texts, others = [], []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        if not isinstance(part, str) and not (isinstance(text, str) and part.keys() <= {"type", "text"}):
            others.append(part)
    if others:
        extra["content_parts"] = clean.json(others)
    return clean.text("\n".join(texts))


def _take_thoughts(left: dict[str, Any], clean: Cleaner) -> str | None:
    for name in _THOUGHTS:
        if name in left and (left[name] is None or isinstance(left[name], str)):
            thoughts = left.pop(name)
            if thoughts:
                return clean.text(thoughts)
    return None


def _take_texts(left: dict[str, Any], values: dict[str, Any], names: Iterable[str], clean: Cleaner) -> None:
    for name in names:
        value = left.get(name)
        if value is None or (isinstance(value, str) and len(value) <= _OWN_TEXTS[name]):
            left.pop(name, None)
            values[name] = value and clean.text(value)


def _drop_assigned(left: dict[str, Any]) -> None:
    for name in _ASSIGNED_ANEW:
        left.pop(name, None)
