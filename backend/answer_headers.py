"""Headers of requests that say how a model is to be asked, and of answers that say how it was."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Header, Request

from ai_lab.chat import Answer
from ai_lab.gateway import Call, TraceParent
from ai_lab.logging import redact_text
from ai_lab.traces.context import parse_traceparent

_NANO_DIGITS = 9
_NANO = Decimal(10) ** _NANO_DIGITS
#: What a header may hold besides letters and digits; names of models are free.
_SAFE = "/:@+-._~ ()[],="


CacheHeader = Annotated[
    Literal["on", "off"],
    Header(alias="x-ai-lab-cache", description="off: ask the model anew, as with `use_cache: false`."),
]
LocalOnlyHeader = Annotated[
    Literal["true", "false"],
    Header(
        alias="x-ai-lab-local-only",
        description="true: refuse any model outside this machine, as with `local_only: true`.",
    ),
]


def trace_parent_of(request: Request) -> TraceParent | None:
    """Return the trace context that the caller sent, None where there is none or it is malformed."""
    sent = request.headers.getlist("traceparent")
    found = parse_traceparent(sent[0]) if len(sent) == 1 else None
    return TraceParent(*found) if found else None


def answer_headers(call: Call) -> dict[str, str]:
    """Return what is known of a call by now: who answers, from where, after how many attempts, and what it cost.

    The cost is in US dollars, and left out as long as, or where, it is not known.
    """
    model = call.answered_by or call.route.first
    cost = call.cost_nanousd
    return _named(model.provider.name, model.full_name, None if cost is None else cost / _NANO) | {
        "x-ai-lab-cache": call.cache,
        "x-ai-lab-attempts": str(call.sent_attempts),
        "x-ai-lab-trace-id": call.id,
    }


def stored_headers(answer: Answer) -> dict[str, str]:
    """Return the same of an answer that is repeated, as far as it is kept: what the cache did only where it helped."""
    cost = None if answer.cost is None else round(Decimal(answer.cost), _NANO_DIGITS)
    headers = _named(answer.provider, answer.model, cost)
    if answer.cache:
        headers["x-ai-lab-cache"] = answer.cache.kind
    if answer.trace_id:  # answers of other programs, or of before there were traces, were not counted
        headers |= {"x-ai-lab-attempts": str(answer.attempts), "x-ai-lab-trace-id": answer.trace_id}
    return headers


def _named(provider: str, model: str, cost: Decimal | None) -> dict[str, str]:
    # Of a call that fails, the model's name may be a key in the wrong place.
    headers = {
        "x-ai-lab-provider": quote(provider, safe=_SAFE),
        "x-ai-lab-model": quote(redact_text(model), safe=_SAFE),
    }
    if cost is not None:
        headers["x-ai-lab-cost"] = f"{cost.normalize():f}"
    return headers
