"""Traces: what became of a call is written down when its answer ends, fails or is left.

The outermost policy, so that it sees what the caller sees, answers of the cache included. The caller's ``traceparent``
is taken over and goes no further: model services are third parties, and which requests belong together is not theirs
to know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ai_lab.clock import monotonic_ms
from ai_lab.errors import LabError
from ai_lab.gateway.call import Call, Door, begins
from ai_lab.gateway.trace_record import Seen, trace_of
from ai_lab.providers import Chunk
from ai_lab.telemetry import Telemetry
from ai_lab.traces import HostLoad, Traces


class Tracing:
    """Lets the answer of the inner policy pass and hands a trace of the call to ``traces``.

    Args:
        inner: what answers.
        traces: takes the trace; where it is off, the answer comes from ``inner`` itself.
    """

    def __init__(self, inner: Door, traces: Traces) -> None:
        self._inner = inner
        self._traces = traces

    def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer; closing the generator stops the work upstream."""
        return self._traced(call) if self._traces.is_on else self._inner.stream(call)

    async def _traced(self, call: Call) -> AsyncGenerator[Chunk, None]:
        keeps_texts = self._traces.keeps_texts
        seen = Seen(self._traces.host_load())
        try:
            async with aclosing(self._inner.stream(call)) as stream:
                async for chunk in stream:
                    if seen.first_token_ms is None and begins(chunk):
                        seen.first_token_ms = monotonic_ms() - call.started_ms
                    if keeps_texts:
                        seen.texts.append(chunk.text)
                    if chunk.finish_reason:
                        seen.last = chunk
                    yield chunk
            if seen.last is not None:
                seen.status = "complete"
        except LabError as error:
            seen.error = error
            raise
        except (GeneratorExit, asyncio.CancelledError):
            # Who has the end mark may leave without asking for more.
            seen.status = "cancelled" if seen.last is None else "complete"
            raise
        finally:
            seen.load_at_end = self._traces.host_load()
            self._traces.record(trace_of(call, seen, call.last_request(), keeps_texts=keeps_texts))


def load_of(telemetry: Telemetry) -> HostLoad | None:
    """Return how busy the machine is by the newest sample; no I/O. None where it is not sampled."""
    snapshot = telemetry.latest()
    if snapshot is None:
        return None
    metrics = snapshot.metrics
    return HostLoad(
        cpu_percent=metrics.cpu_usage_percent,
        memory_percent=metrics.memory_usage_percent,
        gpu_percent=metrics.gpu_utilization_percent,
        sample_age_seconds=round(time.monotonic() - snapshot.monotonic_seconds, 3),
    )
