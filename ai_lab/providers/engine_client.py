"""HTTP to the engine: OpenAI's API as any service has it, and what llama.cpp adds to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ai_lab.errors import ProviderUnavailable
from ai_lab.providers.engine import Engine
from ai_lab.providers.engine_transport import EngineTransport
from ai_lab.providers.http_service import HttpService
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.openai_options import EXTENDED
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.types import ChatRequest, Message

#: Connections for questions. Each one holds a thread of the engine, which has as many as slots and four more.
_QUESTIONS_AT_ONCE = 2


class EngineClient(OpenAICompatible):
    """The engine's answers and what it says about its prompts, its slots and its template."""

    def __init__(self, name: str, engine: Engine, *, timeout_seconds: float) -> None:
        super().__init__(name, f"{engine.base_url}/v1", timeout_seconds=timeout_seconds, dialect=EXTENDED)

        async def key() -> str:
            return engine.api_key

        self.engine = engine
        self._service = HttpService(
            name,
            f"{engine.base_url}/v1",
            api_key=key,
            timeout_seconds=timeout_seconds,
            transport=EngineTransport(),
        )
        self._questions = HttpService(name, engine.base_url, api_key=key, timeout_seconds=timeout_seconds)
        self._question_seats = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
        self._properties: dict[str, Any] | None = None

    async def count_prompt(self, model: str, messages: Sequence[Message]) -> int:
        """Return the length of the prompt in tokens."""
        body, _ = self._body(ChatRequest(model=model, messages=messages))
        answer = await self._ask("POST", "/v1/chat/completions/input_tokens", body)
        return int(answer["input_tokens"])

    async def slots_busy(self) -> int:
        """Return how many slots are at work."""
        return sum(bool(slot["is_processing"]) for slot in await self._ask("GET", "/slots"))

    async def takes_tools(self) -> bool:
        """Return whether the model's chat template has a place for tools."""
        return bool((await self._template())["chat_template_caps"]["supports_tools"])

    async def takes_effort(self) -> bool:
        """Return whether the model's chat template can be told to think, or how hard."""
        properties = await self._template()
        knows_effort = properties["chat_template_caps"].get("supports_reasoning_effort")
        return bool(knows_effort) or "enable_thinking" in str(properties.get("chat_template"))

    async def close(self) -> None:
        """Give back all connections."""
        await super().close()
        await self._questions.close()

    def _body(self, request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Ask for events while the prompt is read: only writing tells llama.cpp that the reader has gone.

        How hard to think is told to the template, in both of the ways that templates know.
        """
        body, warnings = super()._body(request)
        if effort := body.pop(EFFORT, None):
            thinks = effort != "none"
            body["chat_template_kwargs"] = {"enable_thinking": thinks} | ({EFFORT: effort} if thinks else {})
        return {**body, "return_progress": True}, warnings

    async def _template(self) -> dict[str, Any]:
        if self._properties is None:
            self._properties = await self._ask("GET", "/props")
        return self._properties

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        async with self._question_seats:
            try:
                return await self._questions.fetch(method, path, body)
            except ProviderUnavailable:
                if not self.engine.alive:
                    raise
                return await self._questions.fetch(method, path, body)  # a kept connection was just being closed
