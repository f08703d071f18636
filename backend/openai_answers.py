"""What OpenAI's clients read from ``/v1``, as far as AI Lab has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

#: For fields that are there only if they say something.
_LEFT_OUT = Field(exclude_if=lambda value: value is None)


class Model(BaseModel):
    """A model that ``POST /v1/chat/completions`` takes."""

    id: str = Field(description="provider/model, or an alias")
    object: Literal["model"] = "model"
    created: int = Field(description="When its file changed last, in Unix seconds; 0 where that is not known.")
    owned_by: str = Field(description="The provider; alias: a name for a list of models, of which one answers.")
    stale: bool = Field(description="The provider does not answer now; this is from its last list.")
    context_tokens: int | None = Field(description="Tokens that prompt and answer may have together; null: unknown.")


class ModelList(BaseModel):
    """All models of all providers."""

    object: Literal["list"] = "list"
    data: list[Model]


class AskedFunction(BaseModel):
    """A function that the model wants called, and the arguments as the JSON text that it wrote."""

    name: str
    arguments: str


class AskedCall(BaseModel):
    """A call that the model asks for."""

    id: str
    type: Literal["function"] = "function"
    function: AskedFunction
    extra_content: Annotated[dict[str, Any] | None, _LEFT_OUT] = Field(
        default=None, description="Of the service, to be sent back with the call: signatures of its thoughts."
    )


class AnswerMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: Annotated[str | None, _LEFT_OUT] = Field(default=None, description="What it thought before.")
    tool_calls: Annotated[list[AskedCall] | None, _LEFT_OUT] = None


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    logprobs: None = None


class PromptDetails(BaseModel):
    """Of the prompt's tokens, those whose work was kept from before."""

    cached_tokens: int


class AnswerDetails(BaseModel):
    """Of the answer's tokens, those spent on thinking."""

    reasoning_tokens: int


class TokenUsage(BaseModel):
    """Tokens as counted by the model's server; details only as far as it tells them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Annotated[PromptDetails | None, _LEFT_OUT] = None
    completion_tokens_details: Annotated[AnswerDetails | None, _LEFT_OUT] = None


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = Field(description="provider/model")
    choices: list[Choice]
    usage: TokenUsage | None = Field(description="null where the model's server does not tell.")
    warnings: Annotated[list[str] | None, _LEFT_OUT] = Field(
        default=None, description="What of the request was ignored."
    )


class Embedding(BaseModel):
    """The vector of one text: numbers, or 32-bit floats, lowest byte first, as base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens as counted by the model's server."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """One vector per text, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage | None = Field(default=None, description="null where the model's server does not tell.")
