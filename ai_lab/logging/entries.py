"""Turn a record of the standard library into an entry: processors of structlog, one after the other."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, MutableMapping
from datetime import UTC, datetime
from typing import Any

from ai_lab.logging.redaction import redact, redact_text

Entry = MutableMapping[str, Any]
Processor = Callable[[Any, str, Entry], Entry]

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
#: Characters of a traceback: of one frame or message, of its beginning, and of its end, where the cause is.
_MAX_PIECE, _MAX_BEGINNING, _MAX_END = 2_000, 4_000, 10_000
#: What could end a line or command a terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}
_CONTROL_BUT_LINES = {code: text for code, text in _CONTROL.items() if chr(code) not in "\n\t"}


def describe(_: Any, __: str, entry: Entry) -> Entry:
    """Return time (UTC), level, logger, event, the record's own fields, and its exception."""
    record: logging.LogRecord = entry["_record"]
    described = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": entry["event"],
    }
    for name, value in record.__dict__.items():
        if name not in _STANDARD:
            described.setdefault(name, value)
    if error := entry.get("exc_info"):
        described["exception"] = error
    if stack := entry.get("stack_info"):
        described["stack"] = stack
    return described


def without_secrets(known: Collection[str]) -> Processor:
    """Return the processor that redacts every field, and the exception piece by piece."""

    def processor(_: Any, __: str, entry: Entry) -> Entry:
        error = entry.pop("exception", None)
        redacted: Entry = redact(entry, known)
        if isinstance(error, tuple) and error[1] is not None:
            redacted["exception"] = traceback_text(error[1], known)
        return redacted

    return processor


def traceback_text(error: BaseException, known: Collection[str] = ()) -> str:
    """Return the traceback without secrets and without local variables: its beginning and its end if it is long."""
    pieces = [redact_text(piece, known, limit=_MAX_PIECE) for piece in traceback.format_exception(error)]
    if sum(map(len, pieces)) > _MAX_BEGINNING + _MAX_END:
        beginning = _within(pieces, _MAX_BEGINNING)
        end = _within(pieces[len(beginning) :][::-1], _MAX_END)[::-1]
        pieces = [*beginning, "  …\n", *end]
    return "".join(pieces).rstrip("\n")


def printable(_: Any, __: str, entry: Entry) -> Entry:
    """Let no text end its line or command the terminal; a traceback stands indented below its line."""
    for name, value in entry.items():
        if name in {"exception", "stack"}:
            entry[name] = "    " + str(value).translate(_CONTROL_BUT_LINES).replace("\n", "\n    ")
        elif isinstance(value, str) and not value.isprintable():
            entry[name] = value.translate(_CONTROL)
    return entry


def _within(pieces: list[str], limit: int) -> list[str]:
    """Return the first pieces that have no more than ``limit`` characters together."""
    taken: list[str] = []
    for piece in pieces:
        limit -= len(piece)
        if limit < 0:
            break
        taken.append(piece)
    return taken
