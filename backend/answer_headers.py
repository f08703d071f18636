"""Headers of requests that say how a model is to be asked, and of answers that say how it was."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Depends, Header, Request

from ai_lab.chat.report import sent_attempts
from ai_lab.gateway import Call, TraceParent
from ai_lab.traces.context import parse_traceparent

_NANO = Decimal(1_000_000_000)
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


async def _trace_parent(request: Request) -> TraceParent | None:  # a plain function would be run in a thread
    sent = request.headers.getlist("traceparent")
    found = parse_traceparent(sent[0]) if len(sent) == 1 else None
    return TraceParent(*found) if found else None


TraceParentDep = Annotated[TraceParent | None, Depends(_trace_parent)]


def answer_headers(call: Call) -> dict[str, str]:
    """Return what is known of a call by now: who answers, from where, after how many attempts, and what it cost.

    The cost is in US dollars, and left out as long as, or where, it is not known.
    """
    model = call.answered_by or call.route.first
    headers = {
        "x-ai-lab-provider": quote(model.provider.name, safe=_SAFE),
        "x-ai-lab-model": quote(model.full_name, safe=_SAFE),
        "x-ai-lab-cache": call.cache,
        "x-ai-lab-attempts": str(sent_attempts(call)),
        "x-ai-lab-trace-id": call.id,
    }
    if (cost := call.cost_nanousd) is not None:
        headers["x-ai-lab-cost"] = f"{(cost / _NANO).normalize():f}"
    return headers
