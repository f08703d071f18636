"""``/traces``: how answers came about, and the same question asked of another model."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request

from ai_lab.errors import EmptyRange, RequestCancelled
from ai_lab.shapes import PointInTime, SessionId
from ai_lab.traces.repository import Filters
from ai_lab.traces.schemas import NewReplay, Replay, TraceDetail, TracePage
from backend.answer_headers import trace_parent_of
from backend.deps import After, LabDep, Limit
from backend.sse import cancel_when_gone

router = APIRouter(prefix="/traces", tags=["traces"])
TraceId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=36,
        pattern=r"^[0-9A-Za-z-]+$",
        description="The id that `x-ai-lab-trace-id` said, or a W3C trace id: then its newest trace.",
    ),
]


@router.get("")
async def list_traces(
    lab: LabDep,
    *,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[Literal["complete", "failed", "cancelled"] | None, Query()] = None,
    model: Annotated[
        str | None,
        Query(max_length=512, pattern=r"^[^\x00]*$", description="That answered, or the name that was asked for."),
    ] = None,
    provider: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    session_id: Annotated[SessionId | None, Query(description="Of the conversation.")] = None,
    since: Annotated[
        PointInTime | None, Query(alias="from", description="ISO 8601 with its zone, or seconds since 1970.")
    ] = None,
    until: Annotated[
        PointInTime | None, Query(alias="to", description="As `from`; this moment does not count.")
    ] = None,
) -> TracePage:
    """List traces, the newest first."""
    if since and until and since >= until:
        raise EmptyRange
    filters = Filters(status=status, model=model, provider=provider, session_id=session_id, since=since, until=until)
    return await lab.traces.page(filters, limit=limit, after=after)


@router.get("/{trace_id}")
async def get_trace(trace_id: TraceId, lab: LabDep) -> TraceDetail:
    """Return how one answer came about: attempts, cache, times, tokens, cost, errors and the load of the machine."""
    return await lab.traces.get(trace_id)


@router.post("/{trace_id}/replay")
async def replay_trace(trace_id: TraceId, new: NewReplay, lab: LabDep, request: Request) -> Replay:
    """Ask the same question of another model and return both answers; the conversation stays as it is."""
    replaying = asyncio.create_task(lab.replays.replay(trace_id, new, trace_parent=trace_parent_of(request)))

    def stop() -> None:
        replaying.cancel()

    watching = await cancel_when_gone(request, stop)
    try:
        await asyncio.wait({replaying})
    finally:
        watching.cancel()
        stop()
    if replaying.cancelled():
        raise RequestCancelled("The client left before the answer was complete.")
    return replaying.result()
