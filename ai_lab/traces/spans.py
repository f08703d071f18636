"""The one file that imports OpenTelemetry: what ended is told again as spans, with its own times and ids."""

from __future__ import annotations

import logging
import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.re import parse_env_headers

from ai_lab.traces.attributes import attempt_attributes, call_attributes, name_of, span_id_of, times_of
from ai_lab.traces.trace import Trace, TracedAttempt

_SAY_AGAIN_SECONDS = 60.0
#: Spans that wait, and those of one request. Half a second of a busy lab comes at once; where the collector is away,
#: they take about 25 MB, with texts up to 200.
_WITHOUT_TEXTS = (8192, 512)
_WITH_TEXTS = (1024, 64)
#: What they say of a collector that is away: the exporter with each batch, the queue with each span that has no room.
_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class Spans:
    """Makes spans of traces and gives them to the SDK, which sends them in batches. Used by one thread at a time.

    Args:
        endpoint: with its path.
        headers: for the collector, as ``OTEL_EXPORTER_OTLP_HEADERS`` writes them; they may hold a secret.
        service_name: resource attribute.
        version: of the service.
        has_texts: spans are big, so that fewer of them wait and are sent at once.
    """

    def __init__(self, endpoint: str, headers: str | None, service_name: str, version: str, *, has_texts: bool) -> None:
        self._ids = _Ids()
        self._exporter = OTLPSpanExporter(endpoint, headers=parse_env_headers(headers or "", liberal=True))
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_SELDOM)
        queued, at_once = _WITH_TEXTS if has_texts else _WITHOUT_TEXTS
        processor = BatchSpanProcessor(self._exporter, max_queue_size=queued, max_export_batch_size=at_once)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service_name, "service.version": version}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ai_lab.gateway", version)

    def add(self, trace: Trace) -> None:
        """Tell a call and its attempts as spans that have ended already."""
        trace_id = int(trace.trace_id, 16)
        context = Context()
        if trace.parent_span_id:
            parent = SpanContext(
                trace_id, int(trace.parent_span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
            )
            context = set_span_in_context(NonRecordingSpan(parent), context)
        begun, ended = times_of(trace)
        self._ids.next(trace_id, span_id_of(trace.id))
        span = self._tracer.start_span(
            name_of(trace), context, SpanKind.CLIENT, call_attributes(trace), start_time=begun
        )
        if trace.status == "failed":
            span.set_status(Status(StatusCode.ERROR, trace.error))
        inside = set_span_in_context(span, context)
        for attempt in trace.attempts:
            self._add_attempt(trace, attempt, inside)
        for warning in trace.warnings:
            span.add_event("ai_lab.warning", {"message": warning}, ended)
        span.end(ended)

    def close(self) -> None:
        """Send what waits and stop; may take as long as the collector lets it."""
        self._provider.shutdown()

    def _add_attempt(self, trace: Trace, attempt: TracedAttempt, inside: Context) -> None:
        begun, ended = times_of(trace, attempt)
        self._ids.next(int(trace.trace_id, 16), span_id_of(attempt.id))
        span: Span = self._tracer.start_span(
            f"attempt {attempt.provider}/{attempt.model}",
            inside,
            SpanKind.INTERNAL if attempt.is_local else SpanKind.CLIENT,
            attempt_attributes(attempt),
            start_time=begun,
        )
        if attempt.first_token_ms is not None:
            first_ns = begun + int((attempt.first_token_ms - attempt.started_ms) * 1_000_000)
            span.add_event("gen_ai.first_token", timestamp=first_ns)
        if attempt.outcome in {"failed", "refused"}:
            span.set_status(Status(StatusCode.ERROR, attempt.error))
        span.end(ended)


class _Ids(IdGenerator):
    """Gives the ids that the trace has already."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = 0

    def next(self, trace_id: int, span_id: int) -> None:
        """Say which ids the next span has."""
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        """Return that of the trace."""
        return self._trace_id

    def generate_span_id(self) -> int:
        """Return that of the call or attempt."""
        return self._span_id


class _Seldom(logging.Filter):
    """Lets one entry a minute pass."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the entry is logged."""
        if record.levelno < logging.WARNING:
            return True
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _SAY_AGAIN_SECONDS
        return True


_SELDOM = _Seldom()
