"""Turn what a source says into what both databases can keep, and remark on every change."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ai_lab.clock import as_utc
from ai_lab.shapes import SessionId

#: Deeper values are refused: they would take the stack of every program that reads them later.
DEPTH_LIMIT = 100
#: The memory that one text may need.
TEXT_LIMIT_BYTES = 16 * 1024 * 1024
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NOT_IN_SESSION_ID = re.compile(r"[/\\\x00-\x1f\x7f]")
_SESSION_ID = TypeAdapter(SessionId)
_SESSION_ID_LENGTH = 255
_EPOCH_TEXT = re.compile(r"-?\d{9,}(\.\d+)?")  # shorter runs of digits are dates: 20260131
_LATEST_SECONDS, _LATEST_MS = 1e11, 1e14  # larger numbers count milliseconds, still larger ones microseconds


class Cleaner:
    """Cleans the values of one record; ``remarks`` says what was changed."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def text(self, value: str) -> str:
        """Return the text without what Postgres or UTF-8 cannot hold.

        Raises:
            ValueError: it is so long that writing it and its search index would take too much memory.
        """
        if sys.getsizeof(value) > TEXT_LIMIT_BYTES:
            raise ValueError(f"a text of more than {TEXT_LIMIT_BYTES >> 20} MB")
        cleaned, count = _UNSTORABLE.subn("\ufffd", value)
        if count:
            self.remarks.append(f"{count} characters that cannot be stored (NUL, half surrogates) became U+FFFD")
        return cleaned

    def json(self, value: Any, depth: int = 0) -> Any:
        """Return a value that JSON can hold.

        Raises:
            ValueError: it is nested too deep.
        """
        if depth > DEPTH_LIMIT:
            raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, float) and not math.isfinite(value):
            self.remarks.append(f"the number {value} became null")
            return None
        if isinstance(value, dict):
            return {self.text(str(key)): self.json(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item, depth + 1) for item in value]
        return value

    def as_text(self, value: Any) -> str:
        """Return text as it is, nothing as empty, and anything else as JSON. Raises as ``json`` does."""
        if isinstance(value, str):
            return self.text(value)
        value = self.json(value)
        return "" if value is None else json.dumps(value, ensure_ascii=False)

    def moment(self, value: Any) -> datetime | None:
        """Return a moment from ISO 8601 or Unix time, or None; a remark says where something else stood."""
        if value is None or value == "":
            return None
        try:
            return read_moment(value)
        except (ValueError, OverflowError, OSError):
            self.remarks.append(f"timestamp {str(value)[:40]!r} cannot be read; its neighbour's stands in for it")
            return None


def read_moment(value: Any) -> datetime:
    """Return a moment in UTC. Text without a zone is UTC; a number counts seconds, ms or µs since 1970.

    Raises:
        ValueError, OverflowError, OSError: it is no moment.
    """
    if isinstance(value, str) and _EPOCH_TEXT.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = abs(value)
        seconds = value if size < _LATEST_SECONDS else value / 1e3 if size < _LATEST_MS else value / 1e6
        return datetime.fromtimestamp(seconds, UTC)
    if not isinstance(value, str):
        raise ValueError("not a moment")  # noqa: TRY004 - one error for everything that is not one
    return as_utc(datetime.fromisoformat(value.strip()))


def valid_session_id(wanted: str) -> str:
    """Return ``wanted`` if it can be a session_id here, else the nearest name that can."""
    try:
        return _SESSION_ID.validate_python(wanted)
    except (ValidationError, UnicodeError):
        pass
    name = _NOT_IN_SESSION_ID.sub("_", _UNSTORABLE.sub("_", wanted))
    name = "_" + name[1:] if name.startswith(".") else name or "imported"
    if len(name) <= _SESSION_ID_LENGTH:
        return name
    mark = hashlib.sha256(wanted.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _SESSION_ID_LENGTH - 9]}-{mark}"
