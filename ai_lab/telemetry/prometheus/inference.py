"""Calls of models, counted and timed as they pass: to the first token, between pieces, tokens, failures.

What is watched is the provider's own stream. A piece (chunk) is what the model's server sends at once: mostly one
token, so that the time between pieces stands for the time between tokens and is never below it. Where the reader is
slower than the model, it is the reader's pace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

from ai_lab.errors import LabError, RequestCancelled
from ai_lab.logging import SlowOperations
from ai_lab.providers import Chunk, Usage
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.prometheus.exemplars import current_trace_id
from ai_lab.telemetry.prometheus.registry import OTHER, Registry

Result = TypeVar("Result")


class Inference:
    """Watches calls of models; given to ``Providers``. A model that its provider does not list is ``other``.

    A call that is called off counts as cancelled: it is no failure, and its duration says nothing.
    """

    def __init__(self, registry: Registry, operations: Operations, slow: SlowOperations) -> None:
        self._slow = slow
        self.operations = operations
        self.requests = registry.number("llm_requests_total")
        self.failures = registry.number("llm_request_failures_total")
        self.cancelled = registry.number("llm_requests_cancelled_total")
        self.in_progress = registry.number("llm_requests_in_progress")
        self.duration_seconds = registry.histogram("llm_request_duration_seconds")
        self._first_token_seconds = registry.histogram("llm_time_to_first_token_seconds")
        self._gap_seconds = registry.histogram("llm_inter_token_latency_seconds")
        self._load_seconds = registry.histogram("llm_model_load_seconds")
        self._tokens_per_second = registry.histogram("llm_decode_tokens_per_second")
        self._input_per_request = registry.histogram("llm_input_tokens_per_request")
        self._output_per_request = registry.histogram("llm_output_tokens_per_request")
        self._tokens = registry.number("llm_tokens_total")
        self._cache_read_tokens = registry.number("llm_cache_read_tokens_total")
        self._reasoning_tokens = registry.number("llm_reasoning_tokens_total")

    async def chat(
        self, provider: str, model: str | None, chunks: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        """Yield ``chunks`` as they are and measure them; closing this closes them.

        Args:
            provider: its name.
            model: its name, or None where the provider does not list it.
            chunks: the provider's stream, not begun.
        """
        labels = (provider, model or OTHER)
        gap_seen = self._gap_seconds(*labels).observe
        first_at = last_at = 0.0
        with _Call(self, "chat", labels) as call:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if chunk.text or chunk.reasoning or chunk.tool_calls:
                        at = time.perf_counter()
                        if last_at:
                            gap_seen(at - last_at)
                        else:
                            first_at = at
                            self._first_token(labels, at - call.started_at)
                        last_at = at
                        if chunk.pieces > 1:  # they arrived together
                            gap_seen(0.0, times=chunk.pieces - 1)
                    if chunk.finish_reason is not None:
                        call.is_whole = True
                        self._finished(labels, chunk, last_at - first_at)
                    yield chunk

    async def embedding(self, provider: str, model: str | None, vectors: Awaitable[Result]) -> Result:
        """Wait for ``vectors``, measure that, and return them."""
        with _Call(self, "embeddings", (provider, model or OTHER)):
            return await vectors

    def _first_token(self, labels: tuple[str, str], seconds: float) -> None:
        trace_id = current_trace_id()
        self._first_token_seconds(*labels).observe(seconds, trace_id)
        name = f"{'/'.join(labels)} first_token"
        self.operations.record("provider", name, seconds, trace_id=trace_id)
        self._slow("provider", name, seconds)  # not whole answers: those take long by their nature

    def _finished(self, labels: tuple[str, str], chunk: Chunk, writing_seconds: float) -> None:
        """Take the figures of the last chunk. Subsets of input and output have counters of their own."""
        usage, timings, name = chunk.usage or Usage(), chunk.timings, "/".join(labels)
        if load_ms := timings.get("load_ms"):
            self._load_seconds(*labels).observe(load_ms / 1000)
        if usage.prompt_tokens is not None:
            self._tokens(*labels, "input").inc(usage.prompt_tokens)
            self.operations.count(f"tokens_input {name}", usage.prompt_tokens)
            self._input_per_request(*labels).observe(usage.prompt_tokens)
        if usage.completion_tokens is not None:
            self._tokens(*labels, "output").inc(usage.completion_tokens)
            self.operations.count(f"tokens_output {name}", usage.completion_tokens)
            self._output_per_request(*labels).observe(usage.completion_tokens)
        self._cache_read_tokens(*labels).inc(usage.cached_tokens or 0)
        self._reasoning_tokens(*labels).inc(usage.reasoning_tokens or 0)
        # The server's own time where it says so; else ours, in which the first token does not count.
        seconds, tokens = timings.get("generation_ms", 0.0) / 1000, usage.completion_tokens or 0
        if not seconds:
            seconds, tokens = writing_seconds, tokens - 1
        if seconds > 0 and tokens > 0:
            self._tokens_per_second(*labels).observe(tokens / seconds)
            self.operations.record("provider", f"{name} output_token", seconds / tokens)


class _Call:
    """One call of a model, from its beginning to however it ends."""

    def __init__(self, inference: Inference, operation: str, labels: tuple[str, str]) -> None:
        self._inference, self._operation, self._labels = inference, operation, labels
        self.started_at = 0.0
        #: Whether the answer has its end; what goes wrong later is not the model's.
        self.is_whole = False

    def __enter__(self) -> Self:
        self._inference.requests(*self._labels, self._operation).inc()
        self._inference.in_progress(*self._labels).inc()
        self.started_at = time.perf_counter()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self.started_at
        self._inference.in_progress(*self._labels).inc(-1)
        failed = error is not None and not self.is_whole
        if failed and isinstance(error, asyncio.CancelledError | GeneratorExit | RequestCancelled):
            self._inference.cancelled(*self._labels).inc()
            return
        if failed:
            error_type = error.code if isinstance(error, LabError) else LabError.code
            self._inference.failures(*self._labels, error_type).inc()
        trace_id = current_trace_id()
        self._inference.duration_seconds(*self._labels).observe(seconds, trace_id)
        self._inference.operations.record("provider", "/".join(self._labels), seconds, failed=failed, trace_id=trace_id)
