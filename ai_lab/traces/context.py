"""W3C trace context: the header ``traceparent`` of a request, and ids of the same form for calls that came without.

Source of the format: W3C Recommendation "Trace Context", section 3.2 (version ``00``).
"""

from __future__ import annotations

import re
import secrets

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FORBIDDEN_VERSION = "ff"
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
_SAMPLED = 0x01
#: Far longer than any header of today's version; what is longer is not looked at.
_LONGEST_CHARACTERS = 512


def parse_traceparent(text: str | None) -> tuple[str, str, bool] | None:
    """Return trace id (32 hex digits), span id (16) and whether the caller samples; None for an invalid header.

    As the recommendation demands, an invalid header is ignored as if there were none: upper case, version ``ff``, ids
    of zeros only, and anything after the flags in version ``00``. A later version may have more fields, which are left
    alone.
    """
    if not text or len(text) > _LONGEST_CHARACTERS:
        return None
    found = _HEADER.fullmatch(text.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or (version == "00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, bool(int(flags, 16) & _SAMPLED)


def new_trace_id() -> str:
    """Return a random trace id: 32 hex digits, never only zeros."""
    trace_id = secrets.token_hex(16)
    return trace_id if trace_id != _NO_TRACE else new_trace_id()


def new_span_id() -> str:
    """Return a random span id: 16 hex digits, never only zeros."""
    span_id = secrets.token_hex(8)
    return span_id if span_id != _NO_SPAN else new_span_id()
