"""The innermost step: ask the model itself, and write down what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ai_lab.clock import monotonic_ms, new_id
from ai_lab.errors import DeadlineExceeded, LabError, LocalOnly, StreamBroken
from ai_lab.gateway.call import Attempt, Call, begins, length
from ai_lab.gateway.pace import Pace
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel

#: No model writes that much; a service that never ends would fill the memory long before the call's time is over.
_MOST_CHARACTERS = 20_000_000


class Ask:
    """Makes an attempt of each stream.

    Args:
        pace: is told how long a model took to its first token.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def stream(self, call: Call, model: ResolvedModel, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield what the model says.

        Raises:
            LocalOnly: the call must stay on this machine, and the model is elsewhere; it was not asked.
            StreamBroken: the answer ended without its end marker, or does not end at all.
            DeadlineExceeded: it was called off because the time for the whole call is over.
            ProviderError: as the provider does.
        """
        if call.local_only and not model.is_local:
            raise LocalOnly(f"{model.full_name} is not on this machine, and this request must not leave it.")
        attempt = begin_attempt(call, model)
        try:
            answer = model.stream(request) if call.texts is None else _embedding(model, call.texts)
            async with aclosing(answer) as chunks:
                async for chunk in chunks:
                    if attempt.first_token_ms is None and begins(chunk):
                        attempt.first_token_ms = monotonic_ms() - call.started_ms
                        self._pace.measured(model.full_name, attempt.first_token_ms - attempt.started_ms)
                    attempt.characters += length(chunk)
                    if attempt.characters > _MOST_CHARACTERS:
                        raise StreamBroken(f"{model.full_name} did not stop: it sent more than 20 million characters.")
                    if chunk.usage is not None:
                        attempt.usage = chunk.usage
                    if chunk.finish_reason is not None:
                        attempt.outcome = "ok"
                    yield chunk
            if attempt.outcome is None:
                raise StreamBroken("The model's answer ended without its end marker.")
        except LabError as error:
            attempt.outcome, attempt.error = "failed", error
            raise
        except asyncio.CancelledError:
            if asyncio.get_running_loop().time() < call.deadline:
                attempt.outcome = attempt.outcome or "cancelled"
                raise
            # Whoever keeps the deadline has cancelled this; for the policies around it the model has failed.
            attempt.outcome, attempt.error = "failed", deadline_exceeded(model)
            raise attempt.error from None
        except GeneratorExit:
            attempt.outcome = attempt.outcome or "cancelled"
            raise
        finally:
            attempt.outcome = attempt.outcome or "failed"
            attempt.ended_ms = monotonic_ms() - call.started_ms


def begin_attempt(call: Call, model: ResolvedModel) -> Attempt:
    """Return a new attempt of ``call``, written down in it."""
    attempt = Attempt(
        number=len(call.attempts) + 1,
        id=new_id(),
        provider=model.provider.name,
        model=model.model,
        is_local=model.is_local,
        started_ms=monotonic_ms() - call.started_ms,
    )
    call.attempts.append(attempt)
    return attempt


def deadline_exceeded(model: ResolvedModel) -> DeadlineExceeded:
    """Return the error of a call whose time is over."""
    return DeadlineExceeded(
        f"{model.full_name} had not answered in full when the time for the answer was over. Ask for a shorter answer, "
        "choose a faster model, or raise AI_LAB_DEADLINE_SECONDS."
    )


async def _embedding(model: ResolvedModel, texts: Sequence[str]) -> AsyncGenerator[Chunk, None]:
    made = await model.embed(texts)
    yield Chunk(vectors=made.vectors, usage=made.usage, finish_reason="stop")
