"""The shapes in which traces are shown. Null means not known, never nothing; money is US dollars."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from ai_lab.shapes import ShortText
from ai_lab.traces.trace import AttemptKind, HostLoad, TraceStatus

#: What is added up and stored are whole nano-dollars.
_NANO = 1e-9


class TraceSummary(BaseModel):
    """One call in a list."""

    id: str = Field(description="What `x-ai-lab-trace-id` said.")
    trace_id: str = Field(description="W3C trace id; the caller's where it sent a `traceparent`.")
    at: datetime
    source: str = Field(description="chat, openai or replay.")
    status: TraceStatus
    asked: str | None = Field(description="The model or alias as it was asked for; null: the default one.")
    provider: str | None = None
    model: str | None = Field(default=None, description="provider/model that answered.")
    error_code: str | None = None
    cache: str = Field(description="off, bypass, miss, hit, semantic or joined.")
    attempt_count: int
    first_token_ms: float | None = None
    total_ms: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = Field(default=None, description="Of all attempts, in US dollars; null: not known.")
    session_id: str | None = None
    message_id: str | None = None
    request_id: str | None = None


class TracePage(BaseModel):
    """One page of traces, the newest first."""

    data: list[TraceSummary]
    has_more: bool
    after: str | None = Field(default=None, description="Pass it back for the next page.")
    kept_days: float = Field(description="Traces are kept this long (AI_LAB_TRACE_DAYS); 0: none are.")


class AttemptTrace(BaseModel):
    """One try at one model; times are milliseconds since the call began, money US dollars."""

    number: int
    id: str
    kind: AttemptKind
    provider: str
    model: str
    is_local: bool
    server: str | None = None
    started_ms: float
    first_token_ms: float | None = None
    ended_ms: float | None = None
    outcome: str | None = Field(description="ok, failed, cancelled or refused (never sent); null: it went on.")
    error_code: str | None = None
    error: str | None = None
    usage: dict[str, int | None] | None = None
    cost: float | None = None
    price_source: str | None = None
    price_version: str | None = None
    energy_joules: float | None = None
    electricity: float | None = Field(default=None, description="What it cost at AI_LAB_ELECTRICITY_PRICE.")


class LoadTrace(BaseModel):
    """How busy the machine was when the call began and when it ended."""

    start: HostLoad | None = None
    end: HostLoad | None = None


class TraceDetail(TraceSummary):
    """How one answer came about, as a tree."""

    operation: str
    alias: str | None = None
    parent_span_id: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    local_only: bool
    cache_key: str | None = None
    similarity: float | None = Field(default=None, description="Of a semantic hit: how alike the questions are.")
    original_question: str | None = Field(default=None, description="Of a semantic hit, where texts are kept.")
    usage: dict[str, int | None] | None = None
    options: dict[str, Any] = {}
    warnings: list[str] = []
    host_load: LoadTrace
    attempts: list[AttemptTrace]
    prompt: dict[str, Any] | None = Field(default=None, description="Only where AI_LAB_TRACE_PROMPTS says so.")
    answer: str | None = Field(default=None, description="As `prompt`.")


class NewReplay(BaseModel):
    """What is asked once more of whom."""

    model_config = ConfigDict(extra="forbid")

    model: ShortText | None = Field(default=None, description="provider/model or an alias. Default: the default model.")
    use_cache: StrictBool = Field(default=False, description="True: take a stored answer where there is one.")


class ReplaySide(BaseModel):
    """One of the two answers; times in milliseconds, money in US dollars, null: not known."""

    trace: str = Field(description="GET /traces/{this} shows how it came about.")
    model: str | None
    text: str | None = Field(description="Null: it was not kept.")
    status: TraceStatus
    finish_reason: str | None = None
    cache: str
    attempt_count: int
    first_token_ms: float | None = None
    total_ms: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    warnings: list[str] = []


class Replay(BaseModel):
    """The same question, answered twice. Nothing of it is saved into a conversation."""

    original: ReplaySide
    replay: ReplaySide
    prompt_from: Literal["trace", "conversation"] = Field(
        description="Where the question came from. Of a conversation, what the model was shown is made again."
    )


def dollars(nanousd: int | None) -> float | None:
    """Return nano-dollars as US dollars."""
    return None if nanousd is None else round(nanousd * _NANO, 9)
