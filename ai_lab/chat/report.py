"""What an answer tells of the way it came: the model, attempts, cost, cache."""

from __future__ import annotations

from typing import Any

from ai_lab.chat.schemas import Answer, CacheReport
from ai_lab.conversations import Message
from ai_lab.gateway import Call

_NANO = 1e9
_CACHED = ("hit", "semantic", "joined")


def cache_report(call: Call) -> CacheReport | None:
    """Return where a cached answer comes from, or None where it was made anew."""
    if call.cache not in _CACHED:
        return None
    return CacheReport.model_validate(
        {
            "kind": call.cache,
            "key": call.cache_key,
            "similarity": call.similarity,
            "original_question": call.original_question,
        }
    )


def of_call(call: Call) -> dict[str, Any]:
    """Return the fields of an ``Answer`` that a call gives."""
    model = call.answered_by or call.route.first
    report = cache_report(call)
    cost = call.cost_nanousd
    return {
        "model": model.full_name,
        "provider": model.provider.name,
        "cached": report is not None,
        "cache": report,
        "cost": None if cost is None else cost / _NANO,
        "attempts": call.sent_attempts,
        "trace_id": call.id,
    }


def columns(answer: Answer) -> dict[str, Any]:
    """Return how the message of an answer keeps all that: with its usage what it cost, and in ``extra`` the rest."""
    provider, _, model = answer.model.partition("/")
    told = answer.model_dump(include={"cache", "attempts", "trace_id", "warnings"}, exclude_defaults=True)
    return {
        "provider": provider,
        "model": model,
        "usage": None if answer.usage is None else answer.usage | {"cost": answer.cost},
        "extra": {"answer": told},
    }


def stored_answer(message: Message) -> Answer:
    """Return a saved answer in the shape of a fresh one."""
    usage = dict(message.usage) if message.usage else None
    cost = usage.pop("cost", None) if usage else None
    told = (message.extra or {}).get("answer") or {}
    return Answer(
        response=message.content,
        session_id=message.session_id,
        message_id=message.message_id,
        model=f"{message.provider}/{message.model}",
        provider=message.provider or "",
        cached=bool(told.get("cache")),
        usage=usage,
        cost=cost,
        timings=message.timings,
        thought_process=message.thought_process,
        finish_reason=message.finish_reason,
        **told,
    )
