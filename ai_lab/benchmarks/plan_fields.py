"""Fields of plans that strangers may fill in: addresses, keys and options, and what of them can be stored and sent."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, TypeAdapter, ValidationError

#: What a header can carry.
_KEY = r"^[\x21-\x7e]+$"
#: Without a user, whose password would be stored, and without ? and #, for paths are added to it. Programs differ in
#: what they take blanks, controls and backslashes for.
_ADDRESS = r"^[hH][tT][tT][pP][sS]?://[^\x00-\x20\x7f\\?#@]+$"
#: Enough for a grammar, and no more than every part of the way can carry.
_MOST_OPTION_BYTES = 1_000_000
_MOST_OPTION_DEPTH = 32


def _is_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(_KEY[1:-1], key.get_secret_value()):
        raise ValueError("A key is one word of ASCII letters, digits and signs.")
    return key


def _is_address(url: str) -> str:
    try:
        TypeAdapter(HttpUrl).validate_python(url)
    except ValidationError:
        is_address = False
    else:
        is_address = re.fullmatch(_ADDRESS[1:-1], url) is not None
    if not is_address:  # what it is instead may hold a secret
        raise ValueError(
            "A server's address is like http://127.0.0.1:8080/v1: http or https, and no user, password, ? or #. "
            "A key goes into api_key."
        )
    return url.rstrip("/")


def _is_plain(options: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(options, ensure_ascii=False, allow_nan=False).encode())
        is_plain = size <= _MOST_OPTION_BYTES and _depth(options) <= _MOST_OPTION_DEPTH
    except (ValueError, TypeError, RecursionError):
        is_plain = False
    if not is_plain:
        raise ValueError(
            f"Options are JSON of at most {_MOST_OPTION_BYTES} bytes and {_MOST_OPTION_DEPTH} levels, without NaN, "
            "infinity or half of a character."
        )
    return options


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max((_depth(one) for one in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


ApiKey = Annotated[
    SecretStr, Field(min_length=1, max_length=4096, json_schema_extra={"pattern": _KEY}), AfterValidator(_is_key)
]
ServerAddress = Annotated[
    str, Field(max_length=2000, json_schema_extra={"pattern": _ADDRESS}), AfterValidator(_is_address)
]
Options = Annotated[dict[str, Any], AfterValidator(_is_plain)]
