"""Opaque positions in a list: base64url over a little JSON."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from ai_lab.errors import InvalidCursor


def encode(*position: Any) -> str:
    """Return a cursor for a position of whole numbers, text and moments."""
    plain = [part.isoformat() if isinstance(part, datetime) else part for part in position]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def decode_moment(cursor: str) -> tuple[datetime, str]:
    """Return the position ``(moment, id)``; raises ``InvalidCursor``."""
    try:
        moment, identifier = _decode(cursor)
        return _aware(datetime.fromisoformat(moment)), _storable(identifier)
    except (ValueError, TypeError, OverflowError):
        raise _invalid() from None


def decode_number(cursor: str) -> int:
    """Return the position; raises ``InvalidCursor``."""
    try:
        (number,) = _decode(cursor)
    except (ValueError, TypeError):
        raise _invalid() from None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
        raise _invalid()
    return number


def _decode(cursor: str) -> list[Any]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeError, RecursionError) as error:
        raise ValueError from error
    if not isinstance(position, list):
        raise TypeError
    return position


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _storable(text: Any) -> str:
    if not isinstance(text, str) or "\x00" in text:
        raise TypeError
    text.encode()  # refuses lone surrogates
    return text


def _invalid() -> InvalidCursor:
    return InvalidCursor("'after' is not from this list. Leave it out to start at the beginning.", param="after")
