"""Traces as rows, and rows as they are shown."""

from __future__ import annotations

from typing import Any

from ai_lab.traces.schemas import (
    AttemptTrace,
    LoadTrace,
    TraceDetail,
    TraceSummary,
    dollars,
)
from ai_lab.traces.trace import HostLoad, Trace, TracedAttempt, storable

#: As far as the column holds it.
_ASKED_CHARACTERS = 512


def row_of(trace: Trace) -> dict[str, Any]:
    """Return a trace as a row."""
    usage = trace.usage
    return {
        "id": trace.id,
        "trace_id": trace.trace_id,
        "parent_span_id": trace.parent_span_id,
        "request_id": trace.request_id,
        "at": trace.at,
        "source": trace.source,
        "session_id": trace.session_id,
        "message_id": trace.message_id,
        "asked": None if trace.asked is None else storable(trace.asked)[:_ASKED_CHARACTERS],
        "provider": trace.provider,
        "model": None if trace.model is None else storable(trace.model),
        "status": trace.status,
        "error_code": trace.error_code,
        "cache": trace.cache,
        "attempts": sum(attempt.outcome != "refused" for attempt in trace.attempts),
        "first_token_ms": trace.first_token_ms,
        "total_ms": trace.total_ms,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "cost_nanousd": trace.cost_nanousd,
        "tree": _tree(trace),
        "prompt": trace.prompt,
        "answer": None if trace.answer is None else storable(trace.answer),
    }


def _tree(trace: Trace) -> dict[str, Any]:
    return {
        "operation": trace.operation,
        "alias": trace.alias,
        "error": trace.error,
        "finish_reason": trace.finish_reason,
        "local_only": trace.local_only,
        "cache_key": trace.cache_key,
        "similarity": trace.similarity,
        "original_question": trace.original_question,
        "usage": trace.usage and trace.usage.counts(),
        "options": trace.options,
        "warnings": list(trace.warnings),
        "load_at_start": _fields(trace.load_at_start),
        "load_at_end": _fields(trace.load_at_end),
        "attempts": [_attempt_fields(attempt) for attempt in trace.attempts],
    }


def _attempt_fields(attempt: TracedAttempt) -> dict[str, Any]:
    return {name: getattr(attempt, name) for name in TracedAttempt.__slots__} | {
        "usage": attempt.usage and attempt.usage.counts()
    }


def _fields(value: HostLoad | None) -> dict[str, Any] | None:
    """Return a flat dataclass as a dictionary; ``dataclasses.asdict`` copies deeply and takes ten times as long."""
    return None if value is None else {name: getattr(value, name) for name in value.__slots__}


def summary_of(row: dict[str, Any]) -> TraceSummary:
    """Return a row as one in a list."""
    return TraceSummary.model_validate(_shown(row))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    full_name = f"{row['provider']}/{row['model']}" if row["model"] else None
    return {
        **row,
        "model": full_name,
        "attempt_count": row["attempts"],
        "cost": dollars(row["cost_nanousd"]),
    }


def detail_of(row: dict[str, Any]) -> TraceDetail:
    """Return a row with its tree."""
    tree = row["tree"]
    attempts = [
        AttemptTrace.model_validate(
            attempt | {"cost": dollars(attempt["cost_nanousd"]), "electricity": dollars(attempt["electricity_nanousd"])}
        )
        for attempt in tree["attempts"]
    ]
    return TraceDetail.model_validate(
        _shown(row)
        | {name: tree[name] for name in ("operation", "alias", "error", "finish_reason", "local_only")}
        | {
            name: tree[name]
            for name in ("usage", "options", "warnings", "cache_key", "similarity", "original_question")
        }
        | {
            "host_load": LoadTrace(start=tree["load_at_start"], end=tree["load_at_end"]),
            "attempts": attempts,
        }
    )
