"""``POST /chat``: a turn, whole or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ai_lab.chat import Answer, Delta, NewTurn, Turn
from ai_lab.errors import LabError
from backend.answer_headers import CacheHeader, LocalOnlyHeader, answer_headers, stored_headers, trace_parent_of
from backend.deps import IdempotencyKey, LabDep
from backend.errors import problem_of
from backend.sse import CONTENT, HEARTBEAT_SECONDS, EventStream, cancel_when_gone, event

router = APIRouter(tags=["chat"])
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or with `stream: true` events: `message.delta` (a piece and its number), "
        "then `message.done` (the whole answer) or `error` (problem details).",
        "content": CONTENT,
    }
}


@router.post("/chat", response_model=Answer, responses=_STREAM)
async def chat(
    new: NewTurn,
    lab: LabDep,
    request: Request,
    *,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    cache: CacheHeader = "on",
    local_only: LocalOnlyHeader = "false",
) -> Answer | Response:
    """Say something to a model. The message is saved before the model is asked, the answer as it grows."""
    new.use_cache = new.use_cache and cache == "on"
    new.local_only = new.local_only or local_only == "true"
    turn = await lab.chat.start(new, idempotency_key, trace_parent=trace_parent_of(request))
    if isinstance(turn, Answer):
        headers = stored_headers(turn)
        if new.stream:
            return EventStream(_replayed(turn), lambda: None, headers=headers)
        response.headers.update(headers)
        return turn
    request.state.call = turn.call
    watching = await cancel_when_gone(request, turn.cancel)
    try:
        if new.stream:
            await turn.begin(HEARTBEAT_SECONDS)  # then it is known who answers
            events = _events(turn, request.state.request_id)
            return EventStream(events, turn.cancel, headers=answer_headers(turn.call))
        answer = await turn.result()
    finally:
        watching.cancel()
    response.headers.update(answer_headers(turn.call))
    return answer


async def _events(turn: Turn, request_id: str) -> AsyncIterator[bytes]:
    sequence = 0
    async for delta in turn.deltas():
        sequence = delta.sequence
        yield event(delta.model_dump_json(exclude_none=True), name="message.delta", event_id=sequence)
    try:
        answer = await turn.result()
    except LabError as error:
        yield event(problem_of(error, request_id).model_dump_json(exclude_none=True), name="error")
    else:
        yield event(answer.model_dump_json(), name="message.done", event_id=sequence + 1)


async def _replayed(answer: Answer) -> AsyncIterator[bytes]:
    """Send a stored answer in the shape of a stream."""
    delta = Delta(sequence=1, session_id=answer.session_id, message_id=answer.message_id, delta=answer.response)
    yield event(delta.model_dump_json(exclude_none=True), name="message.delta", event_id=1)
    yield event(answer.model_dump_json(), name="message.done", event_id=2)
