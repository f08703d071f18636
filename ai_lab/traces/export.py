"""Traces as OpenTelemetry spans, sent to a collector (OTLP over HTTP, protobuf), where one is configured."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ai_lab import __version__
from ai_lab.database.batches import Batch
from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings
from ai_lab.traces.trace import Trace

if TYPE_CHECKING:
    from ai_lab.traces.spans import Spans

#: Traces that wait in memory at most: with texts, each may have 200 kB.
MOST_WAITING = 10_000
MOST_WAITING_WITH_TEXTS = 500
#: How long the end of a lab waits for a collector.
CLOSE_SECONDS = 5.0
_PATH = "/v1/traces"
logger = logging.getLogger(__name__)


class SpanExport:
    """Sends traces from a thread of its own; what it costs an answer is an entry in a list.

    A collector that does not answer disturbs nobody: what has no room in the queue is dropped.
    """

    def __init__(self, endpoint: str, headers: str | None, service_name: str, *, has_texts: bool) -> None:
        self._endpoint, self._headers, self._service_name = endpoint, headers, service_name
        self._has_texts = has_texts
        self._spans: Spans | None = None
        self._is_unusable = False
        self._waiting = Batch(self._send, most=MOST_WAITING_WITH_TEXTS if has_texts else MOST_WAITING)

    @classmethod
    def open(cls, settings: Settings) -> SpanExport:
        """Return the export to the collector that the settings name; loads nothing and connects nowhere yet.

        ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, ``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_SERVICE_NAME`` and the other
        settings of the OpenTelemetry SDK hold too.

        Raises:
            InvalidSettings: the extra is not installed, or the address is none.
        """
        if not _is_installed():
            raise InvalidSettings(
                "OTEL_EXPORTER_OTLP_ENDPOINT needs the extra: pip install 'ai-lab[otel]'. Or leave the setting empty."
            )
        base = settings.otlp_endpoint or ""
        address = urlsplit(base)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise InvalidSettings(
                "OTEL_EXPORTER_OTLP_ENDPOINT must be an address such as http://127.0.0.1:4318 (OTLP over HTTP). "
                "Correct it or leave it empty."
            )
        return cls(
            settings.named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or base.rstrip("/") + _PATH,
            settings.named("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or settings.named("OTEL_EXPORTER_OTLP_HEADERS"),
            settings.named("OTEL_SERVICE_NAME") or "ai-lab",
            has_texts=settings.trace_prompts,
        )

    def add(self, trace: Trace) -> None:
        """Take a trace unless its caller samples it out. No I/O."""
        if trace.is_sampled:
            self._waiting.add(trace)

    async def close(self, within_seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits; what the collector has not taken by then is lost."""
        ends_at = time.monotonic() + within_seconds
        await self._waiting.close()
        if self._spans:
            await _in_daemon(self._spans.close, ends_at - time.monotonic())

    async def _send(self, traces: Sequence[Trace]) -> None:
        await asyncio.to_thread(self._end_spans, traces)

    def _end_spans(self, traces: Sequence[Trace]) -> None:
        if self._spans is None and not self._is_unusable:
            from ai_lab.traces.spans import Spans  # noqa: PLC0415 - an extra, and slow to import

            try:
                self._spans = Spans(
                    self._endpoint, self._headers, self._service_name, __version__, has_texts=self._has_texts
                )
            except (ImportError, OSError, RuntimeError, ValueError) as error:  # settings of the SDK's own
                self._is_unusable = True
                logger.error("traces cannot be exported: the OpenTelemetry SDK refuses its settings (%s)", error)  # noqa: TRY400 - its traceback says no more
        if self._spans:
            for trace in traces:
                self._spans.add(trace)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:  # one of the packages above it
        return False


async def _in_daemon(work: Callable[[], None], within_seconds: float) -> None:
    """Run something that may hang in a thread that the end of the program does not wait for."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(is_done.set)

    threading.Thread(target=run, name="end of the span export", daemon=True).start()
    try:
        async with asyncio.timeout(max(0.1, within_seconds)):
            await is_done.wait()
    except TimeoutError:
        logger.warning("the OpenTelemetry collector did not take the last spans in time; they are lost")
