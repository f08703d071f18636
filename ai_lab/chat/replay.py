"""A question asked once more, of another model: both answers side by side, and nothing of it is saved as a message."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from ai_lab.chat.prompt import TurnPrompt
from ai_lab.chat.schemas import ChatOptions, NewTurn
from ai_lab.clock import monotonic_ms
from ai_lab.conversations import Conversations, Message
from ai_lab.errors import Conflict, ContextOverflow, UnsupportedFeature
from ai_lab.gateway import Call, Gateway, TraceParent
from ai_lab.gateway.call import MakeRequest, begins
from ai_lab.gateway.texts import request_of
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel
from ai_lab.traces import Traces
from ai_lab.traces.schemas import NewReplay, Replay, ReplaySide, TraceDetail, dollars

#: More messages fit no model that is known; how many of them are sent, the model's context says.
_HISTORY_MESSAGES = 1000
_REMEDY = "Set AI_LAB_TRACE_PROMPTS=true, and the questions of later calls can be asked again."


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked again."""

    make_request: MakeRequest
    answer: str | None
    local_only: bool
    source: Literal["trace", "conversation"]


class Replays:
    """Asks again what traces tell of."""

    def __init__(self, traces: Traces, conversations: Conversations, gateway: Gateway) -> None:
        self._traces = traces
        self._conversations = conversations
        self._gateway = gateway

    async def replay(self, identifier: str, new: NewReplay, *, trace_parent: TraceParent | None = None) -> Replay:
        """Ask the question of a trace once more and return both answers.

        The question comes from the trace where texts are kept, else from the conversation as it was then. What had to
        stay on this machine stays there again. Sampling options are those of the first time; where no texts are kept,
        those of them that cannot be text.

        Raises:
            TraceNotFound: there is no such trace.
            Conflict: the question was not kept, or not all of it.
            UnsupportedFeature: it was no chat.
            LabError: as any call of a model.
        """
        trace = await self._traces.get(identifier)
        if trace.operation != "chat":
            raise UnsupportedFeature("Only chats can be asked again; this call made embeddings.", param="trace_id")
        question = _from_trace(trace) or await self._from_conversation(trace)
        route = await self._gateway.route(new.model, local_only=question.local_only)
        call = self._gateway.begin(
            route,
            question.make_request,
            source="replay",
            use_cache=new.use_cache,
            local_only=question.local_only,
            session_id=trace.session_id,
            trace_parent=trace_parent,
        )
        replayed = await self._ask(call)
        return Replay(original=_original(trace, question.answer), replay=replayed, prompt_from=question.source)

    async def _ask(self, call: Call) -> ReplaySide:
        texts: list[str] = []
        first_ms: float | None = None
        last: Chunk | None = None
        async with aclosing(self._gateway.stream(call)) as stream:
            async for chunk in stream:
                if first_ms is None and begins(chunk):
                    first_ms = monotonic_ms() - call.started_ms
                texts.append(chunk.text)
                if chunk.finish_reason:
                    last = chunk
        usage = last.usage if last else None
        return ReplaySide(
            trace=call.id,
            model=(call.answered_by or call.route.first).full_name,
            text="".join(texts),
            status="complete",
            finish_reason=last.finish_reason if last else None,
            cache=call.cache,
            attempt_count=call.sent_attempts,
            first_token_ms=first_ms,
            total_ms=monotonic_ms() - call.started_ms,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            cost=dollars(call.cost_nanousd),
            warnings=[*call.warnings, *(last.warnings if last else ())],
        )

    async def _from_conversation(self, trace: TraceDetail) -> _Question:
        if trace.session_id is None or trace.message_id is None:
            raise Conflict(f"The question of this trace was not kept. {_REMEDY}", param="trace_id")
        asked, answered = await self._turn(trace.session_id, trace.message_id)
        history = await self._conversations.prompt_history(
            trace.session_id, before=asked.sequence, limit=_HISTORY_MESSAGES
        )
        turn = NewTurn(message=asked.content, options=ChatOptions.model_validate(trace.options))
        return _Question(
            TurnPrompt(turn, history.rows).request,
            answered.content,
            trace.local_only or history.local_only,
            "conversation",
        )

    async def _turn(self, session_id: str, message_id: str) -> tuple[Message, Message]:
        """Return question and answer of a turn by the id of its answer."""
        messages: dict[str, Message] = {}
        async for message in self._conversations.all_messages(session_id):
            messages[message.message_id] = message
            if message.message_id == message_id:
                break
        answered = messages.get(message_id)
        asked = messages.get(answered.reply_to) if answered and answered.reply_to else None
        if answered is None or asked is None:
            raise Conflict(f"The conversation of this trace is not there any more. {_REMEDY}", param="trace_id")
        return asked, answered


def _from_trace(trace: TraceDetail) -> _Question | None:
    """Return the question as the trace has it; None where texts were not kept."""
    if trace.prompt is None:
        return None
    prompt: dict[str, Any] = trace.prompt
    if not prompt["is_whole"]:
        if trace.session_id and trace.message_id:
            return None  # the conversation has all of it
        raise Conflict(
            "The question of this trace is too long, or has images: it was not kept whole and cannot be asked again.",
            param="trace_id",
        )

    async def make_request(model: ResolvedModel, shrink: int) -> ChatRequest:
        if shrink:
            raise ContextOverflow(f"The question is too long for {model.full_name}. Choose another.", param="model")
        request = request_of(prompt, model.model, dict(trace.options))
        if request.tools and not model.provider.supports_tools:
            raise UnsupportedFeature(
                f"The question comes with tools; {model.full_name} cannot call any.", param="model"
            )
        if request.response_format is not None and not model.provider.supports_response_format:
            raise UnsupportedFeature(
                f"The question asks for a response_format; {model.full_name} cannot be held to one.", param="model"
            )
        return request

    return _Question(make_request, trace.answer, trace.local_only, "trace")


def _original(trace: TraceDetail, answer: str | None) -> ReplaySide:
    return ReplaySide(
        trace=trace.id,
        model=trace.model,
        text=answer,
        status=trace.status,
        finish_reason=trace.finish_reason,
        cache=trace.cache,
        attempt_count=trace.attempt_count,
        first_token_ms=trace.first_token_ms,
        total_ms=trace.total_ms,
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.completion_tokens,
        cost=trace.cost,
        warnings=trace.warnings,
    )
