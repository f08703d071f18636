"""An OpenTelemetry collector on a loopback port: takes spans (OTLP over HTTP) and reads them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply

TRACES = "/v1/traces"


@dataclass(frozen=True)
class ReadSpan:
    """A span as a collector sees it; times in nanoseconds since 1970."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector(FakeServer):
    """Accepts everything until told otherwise with ``script(TRACES, …)``."""

    def default_reply(self, request: ReceivedRequest) -> Reply:
        return Reply(headers={"content-type": "application/x-protobuf"})

    @property
    def spans(self) -> list[ReadSpan]:
        """Return all spans that came, in their order."""
        return [span for request in self.received(TRACES) for span in read(request.body)]

    async def wait_for(self, count: int) -> list[ReadSpan]:
        """Wait until so many spans came."""
        async with asyncio.timeout(30):
            while len(self.spans) < count:
                await self.next_request()
        return self.spans


def read(body: bytes) -> list[ReadSpan]:
    """Return the spans of one request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        ReadSpan(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            is_error=span.status.code == 2,
            attributes={pair.key: _value(pair.value) for pair in span.attributes},
            resource={pair.key: _value(pair.value) for pair in resource.resource.attributes},
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
