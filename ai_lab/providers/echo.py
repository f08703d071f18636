"""The echo provider: answers with the last user message, word by word. Offline, exact, for trying things out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

from ai_lab.errors import UnsupportedFeature
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, FinishReason, Message, ModelInfo, Usage

_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+")


class Echo:
    """A provider without a model: a token is a word with the space before it."""

    supports_tools = False
    supports_response_format = False

    def __init__(self, name: str = "echo") -> None:
        self.name = name

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the words of the last user message; ``max_tokens`` and ``stop`` hold."""
        if any(message.has_images() for message in request.messages):
            raise UnsupportedFeature(f"{self.name} reads text only. Leave the images out.", param="messages")
        said = next((message.text() for message in reversed(request.messages) if message.role == "user"), "")
        limit = request.options.get("max_tokens")
        for stop in request.options.get("stop") or []:
            said = said.partition(stop)[0]
        words = _WORD.findall(said)
        finish: FinishReason = "stop"
        if limit is not None and len(words) > limit:
            words, finish = words[:limit], "length"
        for word in words:
            yield Chunk(text=word)
        ignored = sorted(set(request.options) - {"max_tokens", "stop"})
        yield Chunk(
            finish_reason=finish,
            usage=Usage(prompt_tokens=_count(request.messages), completion_tokens=len(words), cached_tokens=0),
            warnings=tuple(f"option {name!r} is not supported by {self.name} and was ignored" for name in ignored),
        )

    async def models(self) -> list[ModelInfo]:
        """Return the one model there is."""
        return [ModelInfo(name="echo", size_bytes=0)]

    async def context_tokens(self, model: str) -> int | None:
        """Return None: there is no limit."""
        return None

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return the number of words."""
        return _count(messages)

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Refuse: echo makes no vectors."""
        raise UnsupportedFeature(f"{self.name} makes no embeddings. Choose a model that does.", param="model")

    async def check(self) -> Check:
        """Return reachable: it is part of this process."""
        return Check(reachable=True, detail="part of this process", latency_ms=0.0)

    async def close(self) -> None:
        """Do nothing: it holds nothing."""


def _count(messages: Sequence[Message]) -> int:
    return sum(len(message.text().split()) for message in messages)
