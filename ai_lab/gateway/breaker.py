"""Leave a model alone that fails again and again, and tell its breaker how each request to it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ai_lab.errors import DeadlineExceeded, LabError, ProviderError
from ai_lab.gateway.breakers import Breakers
from ai_lab.gateway.call import Call, Line
from ai_lab.gateway.refusals import note_refusal
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel

#: A model that was asked so shortly before the end of the call's time had no chance.
_CHANCE_SECONDS = 0.5


class Breaker:
    """Asks ``line`` where the breaker of the model lets it.

    Args:
        line: asks the model.
        breakers: knows which models fail.
    """

    def __init__(self, line: Line, breakers: Breakers) -> None:
        self._line = line
        self._breakers = breakers

    async def stream(self, call: Call, model: ResolvedModel, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer. Raises as ``Breakers.admit`` where the model is left alone, else as ``line`` does."""
        try:
            admission = await self._breakers.admit(model.provider.name, model.model)
        except ProviderError as error:
            note_refusal(call, model, error)
            raise
        loop = asyncio.get_running_loop()
        asked_at, has_begun = loop.time(), False
        try:
            async with aclosing(self._line.stream(call, model, request)) as chunks:
                async for chunk in chunks:
                    if not has_begun:
                        has_begun = True
                        admission.answering()
                    if chunk.finish_reason is not None:  # nobody reads further, so it may be closed here
                        admission.succeeded()
                    yield chunk
            admission.succeeded()
        except DeadlineExceeded as error:
            # The time is that of the whole call: only a model that was silent for its share of it has failed.
            if not has_begun and loop.time() - asked_at >= _CHANCE_SECONDS:
                admission.failed(error)
            raise
        except LabError as error:
            admission.failed(error)
            raise
        finally:
            admission.abandoned()
