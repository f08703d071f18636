"""The earlier AI-Lab's files: ``conversations/<session_id>.json`` and ``states/<session_id>.json``.

Read as a stream: a file may be larger than memory, and one that is damaged at its end must leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ai_lab.importer.cleaning import read_moment
from ai_lab.importer.json_stream import JsonFile
from ai_lab.importer.records import Record, Records, Source, describe, message_record, state_record
from ai_lab.importer.text_file import Watcher

_MESSAGE_FIELDS = frozenset({"role", "content", "message"})
_STATE_FIELDS = frozenset({"message", "status", "feedback", "thought_process", "data"})
_SHAPES = "expected a list of messages, an object with 'messages', or one message"
_STATE_SHAPES = "expected an object with message, status, feedback and thought_process, or a list of them"


def conversation_file(path: Path, watcher: Watcher) -> list[Source]:
    """Return the conversation that the file holds."""
    header: dict[str, Any] = {}

    def read() -> Records:
        with JsonFile(path, watcher) as file:
            if file.peek() == "{":
                yield from _object(file, header)
            elif file.peek() == "[":
                yield from (_record(file, item, message_record) for item in file.items())
            else:
                file.value()
                raise file.damaged_value(_SHAPES)
            file.end()

    return [Source("messages", path.stem, str(path), read, header, _written_at(path))]


def states_file(path: Path, watcher: Watcher) -> list[Source]:
    """Return the agent states that the file holds: one, or a list from the oldest to the newest."""

    def read() -> Records:
        with JsonFile(path, watcher) as file:
            for item in file.items() if file.peek() == "[" else (file.value(),):
                if not isinstance(item, dict) or not item.keys() & _STATE_FIELDS:
                    raise file.damaged_value(_STATE_SHAPES)
                yield _record(file, item, state_record)
            file.end()

    return [Source("states", path.stem, str(path), read, written_at=_written_at(path))]


def _object(file: JsonFile, header: dict[str, Any]) -> Records:
    """Yield the messages of an object, or the object itself where it is one message."""
    fields: dict[str, Any] = {}
    has_messages = False
    for name in file.members():
        if name == "messages" and file.peek() == "[":
            if has_messages:
                raise file.damaged("a second list of messages in one object")
            has_messages = True
            yield from (_record(file, item, message_record) for item in file.items())
        else:
            fields[name] = file.value()
    if has_messages:
        try:
            describe(header, fields)
        except ValueError as error:
            raise file.damaged_value(str(error)) from None
    elif fields.keys() & _MESSAGE_FIELDS:
        yield _record(file, fields, message_record)
    else:
        raise file.damaged(_SHAPES, {"line": 1, "column": 1})


def _written_at(path: Path) -> datetime | None:
    """Return when the file was written: these files hold no other time for a state."""
    try:
        return read_moment(path.stat().st_mtime)
    except (OSError, ValueError, OverflowError):
        return None


def _record(file: JsonFile, item: Any, to_record: Callable[[dict[str, Any]], Record]) -> Record:
    if not isinstance(item, dict):
        raise file.damaged_value(f"expected a message, found {type(item).__name__}")
    try:
        return to_record(item)
    except ValueError as error:
        raise file.damaged_value(str(error)) from None
