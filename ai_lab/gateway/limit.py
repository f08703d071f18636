"""Ask a service no more than its limits allow; further requests wait in turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ai_lab.errors import ServiceLimited
from ai_lab.gateway.call import Call, Line
from ai_lab.gateway.queues import ServiceQueue
from ai_lab.gateway.refusals import note_refusal
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel

#: Of text in UTF-8. English has about four, code and other languages have fewer; too many tokens are the safer error.
BYTES_PER_TOKEN = 3


class Limit:
    """Asks ``line`` while it holds a place of the service.

    Args:
        line: asks the model.
        queue: has the places.
    """

    def __init__(self, line: Line, queue: ServiceQueue) -> None:
        self._line = line
        self._queue = queue

    async def stream(self, call: Call, model: ResolvedModel, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer. Raises ``ServiceLimited`` where there is no place in time, else as ``line`` does."""
        service = model.provider.name
        tokens = estimated_tokens(call, request) if self._queue.counts_tokens(service) else 0
        try:
            async with (
                self._queue.place(service, is_local=model.is_local, tokens=tokens, deadline=call.deadline),
                aclosing(self._line.stream(call, model, request)) as chunks,
            ):
                async for chunk in chunks:
                    yield chunk
        except ServiceLimited as error:
            note_refusal(call, model, error)
            raise


def estimated_tokens(call: Call, request: ChatRequest) -> int:
    """Return how many tokens a request takes at most: those of its text, and ``max_tokens`` where it names them."""
    answer = request.options.get("max_tokens")
    return prompt_tokens(call, request) + (answer if isinstance(answer, int) else 0)


def prompt_tokens(call: Call, request: ChatRequest) -> int:
    """Return about how many tokens the text of a request has: its bytes / 3. Images and tools count as nothing."""
    texts = call.texts if call.texts is not None else [message.text() for message in request.messages]
    return max(1, sum(len(text.encode(errors="replace")) for text in texts) // BYTES_PER_TOKEN)
