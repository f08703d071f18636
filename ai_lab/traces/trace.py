"""What is recorded of a call, as plain values. None means not known, never nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ai_lab.providers import Usage
from ai_lab.providers.reasoning_effort import EFFORTS

TraceStatus = Literal["complete", "failed", "cancelled"]
AttemptKind = Literal["first", "retry", "fallback"]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return text that databases and collectors take: no NUL, no half characters (lone surrogates)."""
    return _UNSTORABLE.sub("\ufffd", text)


def without_texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling options that nobody can have said anything in: numbers, and how hard to think."""
    return {name: value for name, value in options.items() if isinstance(value, int | float) or value in EFFORTS}


@dataclass(frozen=True, slots=True)
class HostLoad:
    """How busy the machine was, in percent, by the newest sample; None where that cannot be measured."""

    cpu_percent: float | None
    memory_percent: float | None
    gpu_percent: float | None
    sample_age_seconds: float


@dataclass(frozen=True, slots=True)
class TracedAttempt:
    """One try at one model. Times are milliseconds since the call began, money nano-dollars.

    Attributes:
        kind: the same model once more is a retry, another one a fallback.
        server: the origin of the service, where it is known.
        outcome: None where it still went on when the trace was made.
    """

    number: int
    id: str
    kind: AttemptKind
    provider: str
    model: str
    is_local: bool
    server: str | None
    started_ms: float
    first_token_ms: float | None
    ended_ms: float | None
    outcome: str | None
    error_code: str | None = None
    error: str | None = None
    usage: Usage | None = None
    cost_nanousd: int | None = None
    price_source: str | None = None
    price_version: str | None = None
    energy_joules: float | None = None
    electricity_nanousd: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """How one answer came about, as plain values that nothing changes any more.

    Attributes:
        id: of the call.
        trace_id: 32 hex digits, of the caller where it sent any; ``parent_span_id`` is its span.
        is_sampled: whether the caller wants the call exported.
        options: of the request: temperature and the like.
        prompt: as ``gateway.texts`` makes it; None, as is ``answer``, unless texts are kept.
    """

    id: str
    trace_id: str
    parent_span_id: str | None
    is_sampled: bool
    request_id: str | None
    at: datetime
    source: str
    operation: Literal["chat", "embeddings"]
    session_id: str | None
    message_id: str | None
    asked: str | None
    alias: str | None
    provider: str | None
    model: str | None
    status: TraceStatus
    error_code: str | None
    error: str | None
    cache: str
    cache_key: str | None
    similarity: float | None
    original_question: str | None
    local_only: bool
    finish_reason: str | None
    usage: Usage | None
    first_token_ms: float | None
    total_ms: float
    cost_nanousd: int | None
    attempts: tuple[TracedAttempt, ...] = ()
    warnings: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    load_at_start: HostLoad | None = None
    load_at_end: HostLoad | None = None
    prompt: dict[str, Any] | None = None
    answer: str | None = None
