"""Take secrets out of whatever is about to leave: log entries, error reports, error texts.

Two rules work together. Where a value has a name (a field, a header, ``name=value`` in a text), the name decides. Where
it has none, its shape does: keys of known services, Fernet and web tokens, ``user:password@`` in addresses. A key with
neither cannot be told from a word; those of the settings are therefore passed in as ``known``.

No pattern repeats within a repetition and every repetition is bounded: no text costs more than its length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import Any

REDACTED = "[redacted]"
#: Characters of one text, entries of one collection and levels that are kept.
MAX_TEXT, MAX_ITEMS, MAX_DEPTH = 16_000, 200, 16
#: Read beyond the cut, so that a secret that lies across it is seen.
_MARGIN = 2_000
#: A text that is shorter holds no secret; as a known one it would blank out ordinary words.
_SHORTEST = 8
_LARGEST_BITS = 256
_LONGEST_NAME = 200
#: Headers are lists of (name, value) to servers and clients.
_PAIR = 2

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = frozenset({"key", "auth", "pwd", "dsn", "sig", "signature", "otp", "jwt", "bearer"})
_SECRET_PARTS = (
    *("password", "passwd", "passphrase", "secret", "credential", "authorization", "cookie"),
    *("apikey", "privatekey", "accesskey", "authkey", "signingkey", "encryptionkey", "masterkey"),
)

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL)
#: ``user:password@``; what looks like a port is none.
_PASSWORD = re.compile(
    r"""(://[^\s/:@\["'<>]{0,256}:)(?!\d{1,5}(?:[/?#\s"',;)]|\Z))[^\s/"'<>]{1,1024}(?:/[^\s/"'<>]{0,99}){0,2}@"""
)
_USER = re.compile(r"""(://)[^\s/:@\["'<>]{1,1024}@""")
_SCHEME = re.compile(
    r"\b((?i:bearer)\s{1,4})(?!(?i:token|auth|key|scheme|realm|header|credential)[a-z]*\b)[\w.~+/=\-]{3,4096}"
    r"|\b((?i:basic)\s{1,4})(?=[A-Za-z+/]{1,99}[0-9A-Z=+/])[A-Za-z0-9+/]{8,4096}={0,2}"  # else it is a word
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[\w\-]{8,4096}|AIza[\w\-]{8,4096}|AQ\.[\w\-]{8,4096}|(?:hf|gsk|api_org|r8)_[A-Za-z0-9]{8,4096}"
    r"|(?:xai|pplx|nvapi|xox[abpr]|glpat)-[\w\-]{8,4096}|(?:tgp_v1|gh[opsu]|github_pat)_[\w\-]{8,4096}"
    r"|AKIA[0-9A-Z]{12,4096}|gAAAA[\w\-]{8,4096}={0,2}|eyJ[\w\-]{8,4096}\.[\w\-]{8,4096}(?:\.[\w\-]{0,4096})?"
    r")"
)
_QUERY = re.compile(r"([?&](?:key|sig|signature|auth|code|jwt)=)[^\s&#\"'<>]{1,4096}", re.IGNORECASE)
_NAME_PARTS = ("pass", "secret", "key", "token", "auth", "cookie", "credential", "pwd")
_NAME = re.compile(
    r"(?P<name>pass(?:word|wd|phrase)|secret|credentials?|token|authorization|cookie|pwd"
    r"|(?:api|private|access|auth|signing|encryption|master)[_\- ]?keys?)(?:[_\-](?:key|value|hash|id))?"
    # The end of a quoted name, then = or : or, in a list of pairs, a comma before the next quote.
    r"(?P<between>\\{0,3}[\"']?\s{0,4}(?:=>|[:=]|%3d)\s{0,4}"
    r"|\\{0,3}[\"']\s{0,4},\s{0,4}(?=[bru]?\\{0,3}[\"']))",
    re.IGNORECASE,
)
#: Headers whose values may hold white space.
_WHOLE_LINES = frozenset({"authorization", "cookie"})
_NOTHING = re.compile(r"(?:none|null|true|false)(?![^\s\"'&,;)\]}])", re.IGNORECASE)
_QUOTED = re.compile(r"(?P<opening>[bru]?(?P<quote>[\"']))(?:\\.|(?!(?P=quote))[^\\]){1,4096}", re.DOTALL)
_ESCAPED = re.compile(r"(?P<opening>[bru]?(?P<quote>\\{1,3}[\"']))(?:(?!(?P=quote)).){1,4096}", re.DOTALL)
_IN_BRACKETS = re.compile(r"(?!\[redacted\])(?P<opening>[\[({])(?:\[redacted\]|[^\])}]){1,4096}")
_SENTENCE = re.compile(r"[A-Za-z]{1,12}\s[a-z]")
_LINE = re.compile(r"[^\r\n]{1,4096}")
_UNQUOTED = re.compile(
    r"(?:(?:bearer|basic|token)\s{1,4})?(?:\[redacted\]|[^\s\"'&,;<>(){}\[\]\\]){1,4096}", re.IGNORECASE
)


def redact(value: Any, known: Collection[str] = ()) -> Any:
    """Return ``value`` without secrets, as what JSON can hold: at most so deep, so many and so long.

    Args:
        value: anything; mappings and collections are copied, what JSON has no name for becomes its ``repr``.
        known: secrets that are looked for by what they are; those under 8 characters are left out.
    """
    return _redact(value, tuple(secret for secret in known if len(secret) >= _SHORTEST), 0)


def redact_text(text: str, known: Collection[str] = (), *, limit: int = MAX_TEXT) -> str:
    """Return ``text`` without secrets and cut after ``limit`` characters; text without any comes back as it is."""
    if len(text) < _SHORTEST:
        return text
    surplus = len(text) - limit
    seen = text[: limit + _MARGIN]
    for secret in known:
        if len(secret) >= _SHORTEST:
            seen = seen.replace(secret, REDACTED)
    lowered = seen.lower()
    if "private key" in lowered:
        seen = _PRIVATE_KEY.sub(REDACTED, seen)
    if "://" in seen:
        seen = _USER.sub(rf"\1{REDACTED}@", _PASSWORD.sub(rf"\1{REDACTED}@", seen))
    if "bearer" in lowered or "basic" in lowered:
        seen = _SCHEME.sub(rf"\1\2{REDACTED}", seen)
    seen = _SHAPES.sub(REDACTED, seen)
    if "=" in seen:
        seen = _QUERY.sub(rf"\1{REDACTED}", seen)
    if ("=" in seen or ":" in seen or "," in seen or "%3" in seen) and any(part in lowered for part in _NAME_PARTS):
        seen = _without_named(seen)
    if surplus <= 0:
        return seen
    # Beyond the margin nothing was seen: what stands at its end may be the first part of a secret.
    end = limit if surplus <= _MARGIN else min(limit, len(seen) - _MARGIN)
    return f"{seen[: max(end, 0)]}… [{surplus} more characters]"


@lru_cache(maxsize=1024)
def _field(name: str, known: tuple[str, ...]) -> tuple[str, bool]:
    """Return how a field is called in the open, and whether it holds a secret."""
    return redact_text(name, known), is_secret_name(name)


def is_secret_name(name: str) -> bool:
    """Return whether a field of this name holds a secret, in whatever case and however compound."""
    words = [word.lower() for word in _WORD.findall(name)]
    joined = "".join(words)
    return (
        joined.endswith("token")
        or any(part in joined for part in _SECRET_PARTS)
        or any(word in _SECRET_WORDS for word in words)
    )


def _redact(value: Any, known: tuple[str, ...], depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return _number(value)
    if depth >= MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, Mapping):
        return _mapping(value, known, depth)
    if isinstance(value, list | tuple | AbstractSet):
        return _collection(value, known, depth)
    return redact_text(_shown(value), known)


def _number(value: Any) -> Any:
    """Return what JSON can hold: no infinity, and no integer too long to be written."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or value.bit_length() <= _LARGEST_BITS:
        return value
    return f"[number of {value.bit_length()} bits]"


def _mapping(value: Mapping[Any, Any], known: tuple[str, ...], depth: int) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, item in list(islice(value.items(), MAX_ITEMS)):  # another thread may be changing it
        shown, is_secret = _field(_shown(name)[:_LONGEST_NAME], known)
        hide = is_secret and item is not None and not isinstance(item, bool)
        entries[shown] = REDACTED if hide else _redact(item, known, depth + 1)
    if len(value) > MAX_ITEMS:
        entries["…"] = f"[{len(value) - MAX_ITEMS} more]"
    return entries


def _collection(value: Collection[Any], known: tuple[str, ...], depth: int) -> list[Any]:
    first = list(islice(value, MAX_ITEMS))
    if len(first) == _PAIR and isinstance(first[0], str | bytes) and _field(_shown(first[0])[:_LONGEST_NAME], known)[1]:
        return [_redact(first[0], known, depth + 1), REDACTED]
    items = [_redact(item, known, depth + 1) for item in first]
    if len(value) > MAX_ITEMS:
        items.append(f"[{len(value) - MAX_ITEMS} more]")
    return items


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value[: MAX_TEXT + _MARGIN]).decode(errors="backslashreplace")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return repr(value)


def _without_named(text: str) -> str:
    """Replace what stands after the name of a secret."""
    parts: list[str] = []
    position = 0
    while match := _NAME.search(text, position):
        value = None if _NOTHING.match(text, match.end()) else _value_after(text, match)
        parts.append(text[position : match.end()])
        position = match.end()
        if value:
            parts.append(f"{value['opening'] or ''}{REDACTED}" if "opening" in value.groupdict() else REDACTED)
            position = value.end()
    parts.append(text[position:])
    return "".join(parts)


def _value_after(text: str, name: re.Match[str]) -> re.Match[str] | None:
    start, between = name.end(), name["between"]
    if enclosed := _QUOTED.match(text, start) or _ESCAPED.match(text, start) or _IN_BRACKETS.match(text, start):
        return enclosed
    if name["name"].lower() in _WHOLE_LINES and between.lstrip().startswith(":"):
        return _LINE.match(text, start)
    if between.rstrip() != between and _SENTENCE.match(text, start):
        return None  # "token: is missing"
    return _UNQUOTED.match(text, start)
