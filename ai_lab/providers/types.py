"""The one interface between AI Lab and whatever runs a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

#: Sampling options under their common names. A provider maps what it knows and names the rest in ``Chunk.warnings``.
OPTION_NAMES = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "max_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "repeat_penalty",
        "reasoning_effort",
    }
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt, in the field's usual roles.

    ``content`` is text, or a list of OpenAI content parts (``{"type": "text"|"image_url", …}``); ``tool_calls`` and
    ``tool_call_id`` have OpenAI's shapes.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]]
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    def text(self) -> str:
        """Return the text parts joined; images count as nothing."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.get("text", "") for part in self.content if part.get("type") == "text")

    def has_images(self) -> bool:
        """Return whether any part is something other than text."""
        return not isinstance(self.content, str) and any(part.get("type") != "text" for part in self.content)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a model is asked. ``model`` is the provider's own name for it, without the ``provider/`` prefix."""

    model: str
    messages: Sequence[Message]
    options: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as counted by the model's server; None where it did not say.

    As OpenAI counts: ``prompt_tokens`` includes those read from (``cached_tokens``) and written to
    (``cache_write_tokens``) the service's own prompt cache, ``completion_tokens`` includes ``reasoning_tokens``.
    Adapters of services that count otherwise add them up. ``cost_nanousd`` is what the service itself says that the
    call cost, in 1e-9 US dollars.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost_nanousd: int | None = None

    def counts(self) -> dict[str, int | None]:
        """Return the tokens alone, by name: what a call cost is told elsewhere, all its attempts included."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "cost_nanousd"}


@dataclass(slots=True)  # not frozen, only because that makes each piece of each answer take three times as long
class Chunk:
    """A piece of an answer, changed by nobody. The last one of a whole answer, and only it, carries ``finish_reason``.

    ``reasoning`` is the model's thinking and never part of the answer. ``timings`` are the server's own, in
    milliseconds: ``load_ms``, ``prompt_ms``, ``generation_ms`` as far as it reports them. ``vectors`` are embeddings;
    their one chunk has nothing else but usage and a ``finish_reason``. ``pieces`` is in how many pieces its text was
    sent: those that arrive together are one chunk.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    vectors: list[list[float]] | None = None
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, and the tokens of the texts where the service counts them."""

    vectors: list[list[float]]
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a provider can run. ``capabilities`` holds of: tools, json, images, thinking, embeddings."""

    name: str
    context_tokens: int | None = None
    size_bytes: int | None = None
    modified_at: datetime | None = None
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a provider answers, without spending a token. ``remedy`` says what to do where it does not."""

    reachable: bool
    detail: str
    latency_ms: float | None = None
    remedy: str | None = None


class Secrets(Protocol):
    """Where API keys come from. They are asked for at every request and kept nowhere else."""

    async def secret_for(self, service: str, base_url: str) -> str | None:
        """Return the key of a service for use at ``base_url``, None where there is none.

        Raises:
            VaultSealed: there is one, but the vault cannot be read.
            ApiKeyUnusable: there is one, but not for this address, or it was tampered with.
            DatabaseUnavailable: its use cannot be written down.
        """
        ...

    def has_key(self, service: str) -> bool:
        """Return whether there is a key, without I/O."""
        ...

    def custom_services(self) -> dict[str, str]:
        """Return base URLs by name: of services that only a key tells of, and of known ones at another address."""
        ...


class Provider(Protocol):
    """What talks to a model.

    Every method raises only errors of the tree in ``ai_lab.errors``; httpx and engine errors never come through.
    """

    name: str
    supports_tools: bool
    supports_response_format: bool

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it is made; closing the generator stops the work upstream.

        A stream that ends without ``finish_reason`` upstream raises ``StreamBroken``; it never passes as whole.
        """
        ...

    async def models(self) -> list[ModelInfo]:
        """Return the models it can run now."""
        ...

    async def context_tokens(self, model: str) -> int | None:
        """Return how many tokens prompt and answer may have together, or None if the service does not say."""
        ...

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return the exact length of the prompt in tokens, or None where it cannot be known beforehand."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Return one vector per text; raises ``UnsupportedFeature`` where it makes none."""
        ...

    async def check(self) -> Check:
        """Return whether the service answers."""
        ...

    async def close(self) -> None:
        """Give back connections and processes."""
        ...
