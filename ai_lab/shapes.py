"""Field types that several capabilities share: what both databases can keep and an address can hold."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

_JSON_NODES = 100_000
_NO_NUL = r"^[^\x00]*$"

#: Text that both databases can keep (Postgres has no NUL), of a length that still makes sense as one message.
Text = Annotated[str, StringConstraints(max_length=2_000_000, pattern=_NO_NUL)]
ShortText = Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)]
Title = Annotated[str, StringConstraints(max_length=500, pattern=_NO_NUL)]
#: Chosen by the user or made by us; one path segment, so that it can stand in an address.
SessionId = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$")
]


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what one of the databases cannot keep inside JSON: NUL, lone surrogates, NaN and infinities."""
    pending: list[Any] = [value]
    seen = 0
    while pending:
        item = pending.pop()
        seen += 1
        if seen > _JSON_NODES:
            raise ValueError(f"must have at most {_JSON_NODES} values")
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("must not contain NaN or Infinity")
        elif isinstance(item, str) and ("\x00" in item or any("\ud800" <= sign <= "\udfff" for sign in item)):
            raise ValueError("must not contain NUL or half characters")
    return value


#: A JSON object that both databases can keep.
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]
