"""The shapes of a chat turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from ai_lab.shapes import WHOLE, SessionId, ShortText, Text

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class ChatOptions(BaseModel):
    """Sampling options under their usual names. What the chosen model does not know is named in ``warnings``."""

    model_config = ConfigDict(extra="allow")

    temperature: float | None = Field(default=None, strict=True, ge=0, le=2)
    top_p: float | None = Field(default=None, strict=True, gt=0, le=1)
    top_k: Annotated[int, Field(ge=0, le=10_000), WHOLE] | None = None
    min_p: float | None = Field(default=None, strict=True, ge=0, le=1)
    seed: Annotated[int, Field(ge=0, lt=2**32), WHOLE] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = None
    stop: StopText | list[StopText] | None = None
    presence_penalty: float | None = Field(default=None, strict=True, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, strict=True, ge=-2, le=2)
    repeat_penalty: float | None = Field(default=None, strict=True, ge=0, le=10)
    reasoning_effort: ReasoningEffort | None = Field(default=None, description="How hard a model that can think does.")

    def given(self) -> dict[str, Any]:
        """Return the options that were set; ``stop`` always as a list."""
        options = {name: value for name, value in self.model_dump().items() if value is not None}
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        return options


class NewTurn(BaseModel):
    """What a user says, and to whom."""

    model_config = ConfigDict(extra="forbid")

    message: Annotated[Text, StringConstraints(min_length=1)]
    session_id: SessionId | None = Field(default=None, description="Left out: a new conversation is started.")
    model: ShortText | None = Field(default=None, description="provider/model, a bare model name, or an alias.")
    system: Text | None = Field(default=None, description="System message; kept in the conversation.")
    options: ChatOptions = Field(default_factory=ChatOptions)
    stream: StrictBool = False
    use_cache: StrictBool = Field(
        default=True, description="False: ask the model anew, also where the same question was answered before."
    )
    local_only: StrictBool = Field(
        default=False, description="True: refuse any model outside this machine, now and later."
    )


class ContextReport(BaseModel):
    """What of the conversation the model was shown."""

    context_tokens: int | None = Field(description="Tokens that prompt and answer may have together; null: unknown.")
    trimmed_messages: int = Field(description="Oldest messages that were left out because they did not fit.")


class CacheReport(BaseModel):
    """Where an answer comes from that was not made anew."""

    kind: Literal["hit", "semantic", "joined"] = Field(
        description="hit: the same request was answered before; semantic: one that says the same was; joined: the same "
        "request was being answered, and both got that answer."
    )
    key: str | None = Field(default=None, description="The stored answer's cache key; DELETE /cache/{key} evicts it.")
    similarity: float | None = Field(default=None, description="Of the two questions (cosine); semantic only.")
    original_question: str | None = Field(default=None, description="The question it was the answer to; semantic only.")


class Answer(BaseModel):
    """A finished turn."""

    response: str
    status: Literal["success"] = "success"
    session_id: str
    message_id: str
    model: str
    provider: str
    cached: bool = False
    cache: CacheReport | None = Field(default=None, description="Where a cached answer comes from.")
    usage: dict[str, Any] | None = None
    cost: float | None = Field(
        default=None, description="Of all attempts together, in US dollars; null where it is not known."
    )
    attempts: int = Field(default=0, description="Times a model was asked for it; 0 where it was cached.")
    trace_id: str | None = Field(default=None, description="GET /traces/{trace_id} tells how it came about.")
    timings: dict[str, Any] | None = Field(default=None, description="Milliseconds.")
    thought_process: str | None = None
    finish_reason: str | None = None
    context: ContextReport | None = None
    warnings: list[str] = []
    error: None = None

    def _repr_markdown_(self) -> str:
        """Show the answer as text in a notebook."""
        return self.response


class Delta(BaseModel):
    """A piece of an answer; ``sequence`` counts from 1 within the stream."""

    sequence: int
    session_id: str
    message_id: str
    delta: str
    thought_process_delta: str | None = None
