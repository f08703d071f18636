"""Traces as the gateway makes them, of calls that never were."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ai_lab.clock import new_id
from ai_lab.providers import Usage
from ai_lab.traces import HostLoad, Trace, TracedAttempt
from ai_lab.traces.context import new_trace_id

BEGUN = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)

_FIRST = TracedAttempt(
    number=1,
    id=new_id(),
    kind="first",
    provider="one",
    model="tiny",
    is_local=False,
    server="10.0.0.5:8000",
    started_ms=1.0,
    first_token_ms=None,
    ended_ms=40.0,
    outcome="failed",
    error_code="provider_unavailable",
    error="one does not answer.",
    cost_nanousd=0,
)
_SECOND = TracedAttempt(
    number=2,
    id=new_id(),
    kind="fallback",
    provider="two",
    model="small",
    is_local=True,
    server="127.0.0.1:8080",
    started_ms=50.0,
    first_token_ms=80.0,
    ended_ms=120.0,
    outcome="ok",
    usage=Usage(7, 3, reasoning_tokens=1),
    cost_nanousd=1_500,
    price_source="settings",
    price_version="2026-11-21",
    energy_joules=1.25,
)


def example(at: datetime = BEGUN, **changes: Any) -> Trace:
    """Return a call of an alias that the first model failed and the second one answered."""
    trace = Trace(
        id=new_id(),
        trace_id=new_trace_id(),
        parent_span_id=None,
        is_sampled=True,
        request_id="request-1",
        at=at,
        source="chat",
        operation="chat",
        session_id="ada",
        message_id=new_id(),
        asked="fast",
        alias="fast",
        provider="two",
        model="small",
        status="complete",
        error_code=None,
        error=None,
        cache="miss",
        cache_key="0" * 64,
        similarity=None,
        original_question=None,
        local_only=False,
        finish_reason="stop",
        usage=Usage(7, 3, reasoning_tokens=1),
        first_token_ms=81.5,
        total_ms=121.5,
        cost_nanousd=1_500,
        attempts=(_FIRST, _SECOND),
        warnings=("one/tiny did not answer: two/small did.",),
        options={"temperature": 0.2},
        load_at_start=HostLoad(12.5, 40.0, None, 1.0),
        load_at_end=HostLoad(80.0, 41.0, None, 0.5),
    )
    return replace(trace, **changes)


def examples(count: int, **changes: Any) -> list[Trace]:
    """Return so many calls, a second apart, the oldest first."""
    return [example(BEGUN + timedelta(seconds=number), **changes) for number in range(count)]
