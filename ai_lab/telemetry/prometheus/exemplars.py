"""Which trace a measured value belongs to, so that a graph leads to the log entries of a slow request."""

from __future__ import annotations

from ai_lab.logging.context import request_ids


def current_trace_id() -> str | None:
    """Return the trace id of the request that is being answered here, or None outside of one."""
    ids = request_ids.get()
    return ids.trace_id if ids else None
