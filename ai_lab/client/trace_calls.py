"""What can be asked of a server about traces."""

from __future__ import annotations

from typing import Any

from ai_lab.client.calls import Call, once, place
from ai_lab.traces.schemas import Replay, TraceDetail, TracePage


def page(after: str | None = None, *, limit: int = 100, **filters: str | None) -> Call[TracePage]:
    """List traces, the newest first; ``filters``: status, model, provider, session_id, from, to."""
    params: dict[str, Any] = {"limit": limit, "after": after, **filters}
    return Call("GET", "/traces", TracePage.model_validate_json, params)


def get(identifier: str) -> Call[TraceDetail]:
    """Return a trace."""
    return Call("GET", place("traces", identifier), TraceDetail.model_validate_json)


def replay(identifier: str, model: str | None, *, use_cache: bool = False) -> Call[Replay]:
    """Ask the question of a trace of another model."""
    body = {"model": model, "use_cache": use_cache}
    return Call("POST", place("traces", identifier, "replay"), Replay.model_validate_json, body=body, headers=once())
