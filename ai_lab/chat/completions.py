"""Answers that are given and forgotten: no conversation, nothing saved, the messages taken as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack

from ai_lab.errors import (
    ContextOverflow,
    LabError,
    RequestCancelled,
    ServerStopping,
    StreamBroken,
    UnsupportedFeature,
)
from ai_lab.gateway import Call, Gateway, Route, TraceParent
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel, Usage
from ai_lab.providers.tool_calls import add_piece
from ai_lab.providers.types import FinishReason

_STOP_SECONDS = 5.0
_AHEAD_CHUNKS = 32
_REMEDY = "Leave it out, or choose a model that can: one of the embedded engine, Ollama or an OpenAI-compatible server."

logger = logging.getLogger(__name__)


class CallOptions(TypedDict, total=False):
    """How a request is to be answered: see ``Gateway.begin``."""

    use_cache: bool
    local_only: bool
    trace_parent: TraceParent | None


@dataclass
class Completed:
    """A whole answer; ``tool_calls`` have OpenAI's shape."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    vectors: list[list[float]] = field(default_factory=list)


class Completion:
    """One answer in the making, in a task of its own so that it can be ended at any moment. Read it once."""

    def __init__(self, call: Call, chunks: AsyncGenerator[Chunk, None]) -> None:
        self.call = call
        self._pending: list[Chunk] = []
        self._grown = asyncio.Event()
        self._ended_by: LabError | None = None
        self.task = asyncio.create_task(self._generate(chunks))
        self.task.add_done_callback(self._ended)

    async def begin(self, within_seconds: float) -> None:
        """Wait for the first piece, at most so long. Raises what went wrong if that happens first."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._grown.wait()
        if self.task.done() and not self._pending:
            self._raise_error()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the pieces as they come; the last has the ``finish_reason``. Raises what went wrong."""
        async for batch in self.batches():
            for chunk in batch:
                yield chunk

    async def batches(self) -> AsyncIterator[list[Chunk]]:
        """Yield the pieces as they come, those that came together at once. Raises what went wrong."""
        while True:
            if self._pending:
                batch, self._pending = self._pending, []
                yield batch
            elif self.task.done():
                self._raise_error()
                return
            else:
                self._grown.clear()
                await self._grown.wait()

    async def result(self) -> Completed:
        """Return the whole answer. Raises what went wrong."""
        await asyncio.wait({self.task})  # rather than be woken for each piece
        whole = Completed()
        text, reasoning = [], []
        calls: dict[int, dict[str, Any]] = {}
        async for chunk in self.chunks():
            text.append(chunk.text)
            reasoning.append(chunk.reasoning)
            for part in chunk.tool_calls or []:
                add_piece(calls, part)
            if chunk.finish_reason:
                whole.finish_reason, whole.usage = chunk.finish_reason, chunk.usage
                whole.warnings = chunk.warnings
            if chunk.vectors is not None:
                whole.vectors = chunk.vectors
        whole.text, whole.reasoning = "".join(text), "".join(reasoning)
        whole.tool_calls = [_whole_call(calls[index]) for index in sorted(calls)]
        return whole

    def cancel(self, reason: LabError | None = None) -> None:
        """Stop the model; whoever still reads gets ``reason`` after the pieces that had come."""
        if not self.task.done() and self._ended_by is None:
            self._ended_by = reason or RequestCancelled("The client left before the answer was complete.")
            self.task.cancel()

    @property
    def model(self) -> ResolvedModel:
        """Return the model that answers, or before its first piece the one that is asked first."""
        return self.call.answered_by or self.call.route.first

    async def _generate(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        finished = False
        async with aclosing(chunks):
            async for chunk in chunks:
                self._pending.append(chunk)
                self._grown.set()
                finished = finished or chunk.finish_reason is not None
                if len(self._pending) > _AHEAD_CHUNKS:  # a model that never has to wait lets others have a turn
                    await asyncio.sleep(0)
        if not finished:
            raise StreamBroken("The model's answer ended without its end marker.")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._grown.set()
        if not task.cancelled():
            task.exception()  # marked as seen: nobody reads the answer of a client that left

    def _raise_error(self) -> None:
        if self.task.cancelled():
            raise self._ended_by or ServerStopping()
        error = self.task.exception()
        if isinstance(error, LabError):
            raise error
        if error is not None:
            logger.error("an answer of %s failed", self.model.full_name, exc_info=error)
            raise LabError("Something unexpected went wrong while the model answered. The log has the details.")


class Completions:
    """Makes stateless answers and ends those that still run when the lab closes."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._running: set[Completion] = set()
        self._stopping = False

    @property
    def running(self) -> int:
        """Return how many answers are in the making."""
        return len(self._running)

    def start(self, route: Route, request: ChatRequest, **more: Unpack[CallOptions]) -> Completion:
        """Begin to answer ``request``, whose model is set to that of the route which is asked.

        Raises:
            ServerStopping: no answer is begun any more.
        """

        async def make_request(model: ResolvedModel, shrink: int) -> ChatRequest:
            if shrink:
                raise ContextOverflow(f"The messages are too long for {model.full_name}. Send less.", param="messages")
            _check_features(model, request)
            return replace(request, model=model.model)

        return self._started(self._gateway.begin(route, make_request, source="openai", **more))

    def embed(self, route: Route, texts: Sequence[str], **more: Unpack[CallOptions]) -> Completion:
        """Begin to make vectors of ``texts``; they are in the result.

        Of an alias, only models of the same name take part, at other services: vectors of two models do not compare.

        Raises:
            ServerStopping: none are begun any more.
        """

        async def make_request(model: ResolvedModel, _shrink: int) -> ChatRequest:
            return ChatRequest(model.model, ())

        same = replace(route, models=tuple(model for model in route.models if model.model == route.first.model))
        return self._started(self._gateway.begin(same, make_request, source="openai", texts=texts, **more))

    def _started(self, call: Call) -> Completion:
        if self._stopping:
            raise _stopping()
        completion = Completion(call, self._gateway.stream(call))
        self._running.add(completion)
        completion.task.add_done_callback(lambda _: self._running.discard(completion))
        return completion

    async def close(self) -> None:
        """End every running answer; who reads it learns that the server is stopping."""
        self._stopping = True
        for completion in self._running:
            completion.cancel(_stopping())
        if self._running:
            await asyncio.wait({completion.task for completion in self._running}, timeout=_STOP_SECONDS)


def _check_features(model: ResolvedModel, request: ChatRequest) -> None:
    """Refuse what the model's provider cannot do."""
    if request.tools and not model.provider.supports_tools:
        raise UnsupportedFeature(f"{model.full_name} cannot call tools. {_REMEDY}", param="tools")
    if request.response_format is not None and not model.provider.supports_response_format:
        raise UnsupportedFeature(
            f"{model.full_name} cannot be held to a response_format. {_REMEDY}", param="response_format"
        )


def _stopping() -> ServerStopping:
    return ServerStopping("The server is stopping. Ask again in a moment.", retry_after_seconds=5)


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call as a whole answer has it: without its place in a stream."""
    return {"id": "", "type": "function"} | {name: value for name, value in call.items() if name != "index"}
