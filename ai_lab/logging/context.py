"""Which request a line of the log belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple


class RequestIds(NamedTuple):
    """Of the request that is answered here: our own id, and the W3C trace id (32 hexadecimal digits)."""

    request_id: str
    trace_id: str


#: Set by whoever answers requests. Tasks begun meanwhile inherit it, so that what they log later is found with it.
request_ids: ContextVar[RequestIds | None] = ContextVar("request_ids", default=None)
