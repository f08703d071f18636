"""A provider that an installed package could bring, with models that misbehave. The entry point is ``make``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ai_lab.errors import ProviderError, StreamBroken
from ai_lab.providers import ChatRequest, Chunk, ModelInfo, Usage
from ai_lab.providers.echo import Echo
from ai_lab.providers.types import Check


class Odd(Echo):
    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        yield Chunk(reasoning="Hm")
        await asyncio.sleep(0.03)
        yield Chunk(text="Yes")
        if request.model == "broken":
            raise StreamBroken("odd stopped.")
        if request.model == "failing":
            raise ProviderError("odd failed.")
        if request.model == "silent":
            await asyncio.Event().wait()
        if request.model == "endless":
            return
        yield Chunk(
            finish_reason="stop",
            usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=4),
            timings={"load_ms": 1.5, "prompt_ms": 2.5, "generation_ms": 30.0},
        )

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(name="fine", size_bytes=77)]

    async def context_tokens(self, model: str) -> int | None:
        return 99

    async def check(self) -> Check:
        return Check(reachable=self.name == "odd", detail="it is ill", remedy="Cure it.")


def make(_settings: Any) -> Odd:
    return Odd("odd")


def make_ill(_settings: Any) -> Odd:
    return Odd("ill")
