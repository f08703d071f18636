"""The shapes of stored answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from ai_lab.providers import Usage
from ai_lab.providers.types import FinishReason

#: ``hit``: the very same request; ``semantic``: one whose last question only says the same.
FoundKind = Literal["hit", "semantic"]


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What stands for one request.

    Attributes:
        key: SHA-256 of the whole request in canonical form, in hex.
        scope: SHA-256 of the request without the text of its last user turn; only within it are questions compared.
        question: that text; None where no other question may stand for it (tools, images, too long, no user turn).
        is_local_only: nothing of it may leave the machine: it is not looked for in Redis, which may be elsewhere.
    """

    key: str
    scope: str
    question: str | None
    provider: str
    model: str
    is_local_only: bool = False


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A whole answer. ``tool_calls`` have OpenAI's shape and their ``index``; ``usage`` is what it took to make it."""

    provider: str
    model: str
    text: str
    finish_reason: FinishReason
    created_at: datetime
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A stored answer that fits a request; ``key`` is its own, by which a wrong one is evicted."""

    answer: StoredAnswer
    kind: FoundKind
    key: str
    similarity: float | None = None
    original_question: str | None = None


class CacheStats(BaseModel):
    """How much is stored, and how often it helped since the lab began (all servers of the database together)."""

    enabled: bool
    store: Literal["database", "redis", "none"] = Field(description="What all servers share; memory is in front of it.")
    semantic: Literal["off", "shadow", "on"]
    entries: int | None = Field(description="Null where the store does not say.")
    size_bytes: int | None = Field(description="Null where the store does not say.")
    limit_bytes: int | None = Field(description="Null in Redis, which has a limit of its own (maxmemory).")
    memory_entries: int = Field(description="Of this server alone.")
    memory_bytes: int = Field(description="Of this server alone.")
    ttl_seconds: float
    lookups: int
    hits: int
    semantic_hits: int
    joined: int = Field(description="Requests that shared the answer to an identical one that was being made.")
    shadow_hits: int = Field(description="Would have been semantic hits; the model was asked all the same.")
    hit_rate: float | None = Field(description="Hits of both kinds per look-up; null without look-ups.")
    saved_prompt_tokens: int
    saved_completion_tokens: int
    store_failures: int = Field(description="How often this server could not use the store since it started.")
    oldest_at: datetime | None


class CachedAnswer(BaseModel):
    """One stored answer, without its text."""

    key: str
    provider: str
    model: str
    question: str | None = Field(
        description="Its beginning; kept only where the semantic cache is on or in shadow mode."
    )
    size_bytes: int
    hits: int
    semantic_hits: int
    created_at: datetime
    expires_at: datetime
    last_hit_at: datetime | None


class CachedAnswerPage(BaseModel):
    """One page of stored answers, the newest first."""

    data: list[CachedAnswer]
    has_more: bool
    after: str | None = Field(default=None, description="Pass it back for the next page.")


class Deleted(BaseModel):
    """How many stored answers went."""

    deleted: int
