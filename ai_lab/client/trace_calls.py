"""What can be asked of a server about traces."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ai_lab.client.calls import Call, once, place
from ai_lab.traces.schemas import Replay, TraceDetail, TracePage

#: As text: 2026-11-30T08:00:00Z.
Moment = datetime | str


def page(after: str | None = None, *, limit: int = 100, **filters: str | None) -> Call[TracePage]:
    """List traces, the newest first; ``filters``: those of ``filters``."""
    params: dict[str, Any] = {"limit": limit, "after": after, **filters}
    return Call("GET", "/traces", TracePage.model_validate_json, params)


def filters(*, start: Moment | None, end: Moment | None, **named: str | None) -> dict[str, str | None]:
    """Return which traces are wanted, as an address says it; ``named``: status, model, provider, session_id."""
    return {**named, "from": str(start) if start else None, "to": str(end) if end else None}


def get(identifier: str) -> Call[TraceDetail]:
    """Return a trace."""
    return Call("GET", place("traces", identifier), TraceDetail.model_validate_json)


def replay(identifier: str, model: str | None, *, use_cache: bool = False) -> Call[Replay]:
    """Ask the question of a trace of another model."""
    body = {"model": model, "use_cache": use_cache}
    return Call("POST", place("traces", identifier, "replay"), Replay.model_validate_json, body=body, headers=once())
