"""Field types that several capabilities share: what both databases can keep and an address can hold."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints, WithJsonSchema

_JSON_NODES = 100_000
_JSON_DEPTH = 128  # Python's own encoder gives up at a depth that hangs on who calls it
_NO_NUL = r"^[^\x00]*$"

#: Text that both databases can keep: Postgres has no NUL. The limit on a request bounds its length.
Text = Annotated[str, StringConstraints(pattern=_NO_NUL)]
ShortText = Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)]
Title = Annotated[str, StringConstraints(max_length=500, pattern=_NO_NUL)]
#: Chosen by the user or made by us; one path segment, so that it can stand in an address.
SessionId = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$")
]


def _as_text(value: Any) -> Any:
    """Refuse a bare number, which would be taken for seconds since 1970 or milliseconds, whichever looks likelier."""
    if isinstance(value, int | float):
        raise ValueError("must be text such as 2026-01-31T12:00:00Z")  # noqa: TRY004 - pydantic reports a ValueError
    return value


def _as_whole(value: Any) -> Any:
    """Take 3.0 for 3, as JSON does, but neither true for 1 nor "3" for 3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic reports a ValueError
    return value


#: Makes an ``int`` a whole number in the sense of JSON Schema. It stands after the limits, or they go undocumented.
WHOLE = BeforeValidator(_as_whole)
#: A moment with its zone.
Moment = Annotated[AwareDatetime, BeforeValidator(_as_text)]


def _point_in_time(value: Any) -> Any:
    """Read digits as seconds since 1970; pydantic would take large ones for milliseconds."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,400}(\.[0-9]{0,400})?([eE][-+]?[0-9]{1,3})?", value):
        try:
            return datetime.fromtimestamp(float(value), UTC)
        except (ValueError, OverflowError, OSError):
            raise ValueError("must be seconds since 1970 or text such as 2026-01-31T12:00:00Z") from None
    if isinstance(value, str) and value.startswith(("-", "+")):  # pydantic would take them for seconds before 1970
        raise ValueError("must be seconds since 1970 or text such as 2026-01-31T12:00:00Z")
    return value


_UNIX_SECONDS = {"type": "number", "minimum": 0, "maximum": 253_402_300_799}
#: A moment in an address: ISO 8601 with its zone, or seconds since 1970.
PointInTime = Annotated[
    AwareDatetime,
    BeforeValidator(_point_in_time),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, _UNIX_SECONDS]}),
]


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is no JSON though Python reads it: half characters (lone surrogates), NaN and infinities."""
    pending: list[tuple[Any, int]] = [(value, 1)]
    seen = 0
    while pending:
        item, depth = pending.pop()
        seen += 1
        if seen > _JSON_NODES or depth > _JSON_DEPTH:
            raise ValueError(f"must have at most {_JSON_NODES} values, nested at most {_JSON_DEPTH} deep")
        if isinstance(item, dict):
            pending += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            pending += [(part, depth + 1) for part in item]
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("must not contain NaN or Infinity")
        elif isinstance(item, str) and any("\ud800" <= sign <= "\udfff" for sign in item):
            raise ValueError("must not contain half characters (lone surrogates)")
    return value


#: A JSON object that both databases can keep.
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]
