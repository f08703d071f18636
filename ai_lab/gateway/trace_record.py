"""A trace of a call: everything that the policies wrote down, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ai_lab.clock import monotonic_ms
from ai_lab.errors import LabError
from ai_lab.gateway.call import Attempt, Call
from ai_lab.gateway.texts import embedded_texts, options_of, prompt_of, shortened
from ai_lab.logging import redact_text, request_ids
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel
from ai_lab.traces import HostLoad, Trace, TracedAttempt
from ai_lab.traces.context import new_trace_id
from ai_lab.traces.trace import AttemptKind, TraceStatus, storable

_ERROR_CHARACTERS = 2000
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class Seen:
    """What passes on its way to the caller; a call of which nobody says otherwise has failed."""

    load_at_start: HostLoad | None
    load_at_end: HostLoad | None = None
    status: TraceStatus = "failed"
    error: LabError | None = None
    first_token_ms: float | None = None
    last: Chunk | None = None
    texts: list[str] = field(default_factory=list)


def trace_of(call: Call, seen: Seen, request: ChatRequest | None, *, keeps_texts: bool) -> Trace:
    """Return what is kept of a call.

    Args:
        call: that has ended, as far as its caller is concerned.
        seen: what the caller saw of it.
        request: as it was made last; None: none was.
        keeps_texts: whether prompt and answer are kept.
    """
    tried = call.answered_by or _last_tried(call)
    parent, ids, error = call.trace_parent, request_ids.get(), seen.error
    return Trace(
        id=call.id,
        trace_id=parent.trace_id if parent else ids.trace_id if ids else new_trace_id(),
        parent_span_id=parent.span_id if parent else None,
        is_sampled=parent.is_sampled if parent else True,
        request_id=call.request_id,
        at=call.started_at,
        source=call.source,
        operation="chat" if call.texts is None else "embeddings",
        session_id=call.session_id,
        message_id=call.message_id,
        asked=call.route.asked and redact_text(call.route.asked),  # a key in the wrong place is kept nowhere
        alias=call.route.alias,
        provider=tried.provider.name,
        model=redact_text(tried.model),
        status=seen.status,
        error_code=error.code if error else LabError.code if seen.status == "failed" else None,
        error=_told(error),
        cache=call.cache,
        cache_key=call.cache_key,
        similarity=call.similarity,
        original_question=call.original_question if keeps_texts else None,
        local_only=call.local_only,
        finish_reason=seen.last.finish_reason if seen.last else None,
        usage=seen.last.usage if seen.last else None,
        first_token_ms=_rounded(seen.first_token_ms),
        total_ms=round(monotonic_ms() - call.started_ms, 3),
        cost_nanousd=call.cost_nanousd,
        attempts=_attempts(call),
        warnings=tuple(storable(redact_text(warning)) for warning in call.warnings),
        options=options_of(request, keeps_texts=keeps_texts),
        load_at_start=seen.load_at_start,
        load_at_end=seen.load_at_end,
        prompt=_prompt(call, request) if keeps_texts else None,
        answer=shortened("".join(seen.texts)) if keeps_texts and call.texts is None else None,
    )


def _attempts(call: Call) -> tuple[TracedAttempt, ...]:
    traced: list[TracedAttempt] = []
    servers = {model.provider.name: model for model in call.route.models}
    for attempt in call.attempts:
        kind: AttemptKind = "first"
        if traced:
            before = traced[-1]
            kind = "retry" if (before.provider, before.model) == (attempt.provider, attempt.model) else "fallback"
        traced.append(_traced_attempt(attempt, kind, servers.get(attempt.provider)))
    return tuple(traced)


def _traced_attempt(attempt: Attempt, kind: AttemptKind, model: ResolvedModel | None) -> TracedAttempt:
    charge, error = attempt.charge, attempt.error
    return TracedAttempt(
        number=attempt.number,
        id=attempt.id,
        kind=kind,
        provider=attempt.provider,
        model=redact_text(attempt.model),
        is_local=attempt.is_local,
        server=_server(model),
        started_ms=round(attempt.started_ms, 3),
        first_token_ms=_rounded(attempt.first_token_ms),
        ended_ms=_rounded(attempt.ended_ms),
        outcome=attempt.outcome,
        error_code=error.code if error else None,
        error=_told(error),
        usage=attempt.usage,
        cost_nanousd=charge.cost_nanousd if charge else None,
        price_source=charge.price_source if charge else None,
        price_version=charge.price_version if charge else None,
        energy_joules=charge.energy_joules if charge else None,
        electricity_nanousd=charge.electricity_nanousd if charge else None,
    )


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)


def _told(error: LabError | None) -> str | None:
    """Return an error's text; a service may have put into it what must not be kept."""
    return storable(redact_text(error.detail, limit=_ERROR_CHARACTERS)) if error else None


def _last_tried(call: Call) -> ResolvedModel:
    """Return the model that was tried last, or the first of the route where none was."""
    if call.attempts:
        last = call.attempts[-1]
        for model in call.route.models:
            if (model.provider.name, model.model) == (last.provider, last.model):
                return model
    return call.route.first


def _server(model: ResolvedModel | None) -> str | None:
    """Return host and port of the service, without user and path; None where its adapter does not say."""
    address: str | None = getattr(model.provider, "address", None) if model else None
    if not address:
        return None
    place = urlsplit(address)
    port = place.port or _PORTS.get(place.scheme)
    return f"{place.hostname}:{port}" if place.hostname and port else None


def _prompt(call: Call, request: ChatRequest | None) -> dict[str, object] | None:
    if call.texts is not None:
        return embedded_texts(call.texts)
    return prompt_of(request) if request else None
