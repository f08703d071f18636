"""Traces as a collector sees them, over a real socket; and that a collector that is away disturbs nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from ai_lab import __version__
from ai_lab.database import Database
from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings
from ai_lab.traces import Traces
from ai_lab.traces.export import CLOSE_SECONDS
from tests.fakes.http_server import Reply
from tests.security.canary import holds_secret, new_secret
from tests.server import ROOT, environment, free_port, working_folder
from tests.traces.collector import TRACES, Collector
from tests.traces.examples import BEGUN, example

PARENT: dict[str, Any] = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "parent_span_id": "b7ad6b7169203331"}


@asynccontextmanager
async def exporting(
    url: str, file: Path, close_seconds: float = CLOSE_SECONDS, **settings: Any
) -> AsyncIterator[Traces]:
    """Give traces that are exported and not kept; at the end what waits is sent."""
    database = Database(make_url(f"sqlite+aiosqlite:///{file}"))
    traces = Traces(Settings(otlp_endpoint=url, trace_days=0, **settings), database)
    try:
        yield traces
    finally:
        await traces.close(close_seconds)
        await database.close()


async def test_a_call_is_a_span_and_each_attempt_one_below_it(migrated_file: Path) -> None:
    made = example(request_id="r-7", options={"temperature": 0.2, "max_tokens": 64}, **PARENT)
    async with Collector() as collector:
        async with exporting(f"{collector.origin}/", migrated_file) as traces:
            traces.record(made)
        root, first, second = sorted(collector.spans, key=lambda span: span.name != "chat small")
    assert {span.trace_id for span in (root, first, second)} == {PARENT["trace_id"]}
    assert (root.name, root.parent_id, root.is_error) == ("chat small", PARENT["parent_span_id"], False)
    assert root.start == int(BEGUN.timestamp()) * 10**9 + BEGUN.microsecond * 1000
    assert root.end - root.start == 121_500_000
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "two",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "small",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.id": made.id,
        "gen_ai.response.time_to_first_chunk": 0.0815,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.conversation.id": "ada",
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "ai_lab.alias": "fast",
        "ai_lab.cache": "miss",
        "ai_lab.attempts": 2,
        "ai_lab.cost_usd": 0.0000015,
        "ai_lab.request_id": "r-7",
    }
    assert {name: root.attributes.get(name) for name in expected} == expected
    assert "error.type" not in root.attributes
    assert "gen_ai.usage.cache_read.input_tokens" not in root.attributes  # not known, so not there
    assert not [name for name in root.attributes if name.endswith(".messages")]
    assert {first.parent_id, second.parent_id} == {root.span_id}
    failed = min(first, second, key=lambda span: span.start)
    assert (failed.is_error, failed.attributes["error.type"]) == (True, "provider_unavailable")
    assert (failed.start - root.start, failed.end - root.start) == (1_000_000, 40_000_000)
    assert not [name for span in (first, second) for name in span.attributes if name.startswith("gen_ai.usage")]
    assert root.resource["service.name"] == "ai-lab"
    assert root.resource["service.version"] == __version__


async def test_a_failed_call_without_a_parent_is_a_root_with_an_error(migrated_file: Path) -> None:
    made = example(status="failed", error_code="provider_timeout", error="two took too long.", attempts=())
    async with Collector() as collector:
        async with exporting(collector.origin, migrated_file) as traces:
            traces.record(made)
        (root,) = collector.spans
    assert (root.trace_id, root.parent_id, root.is_error) == (made.trace_id, "", True)
    assert root.attributes["error.type"] == "provider_timeout"


async def test_a_caller_that_does_not_sample_is_not_exported(migrated_file: Path) -> None:
    async with Collector() as collector:
        async with exporting(collector.origin, migrated_file) as traces:
            traces.record(example(is_sampled=False, **PARENT))
            traces.record(example(attempts=()))
        assert len(collector.spans) == 1


async def test_texts_are_sent_where_they_are_kept(migrated_file: Path) -> None:
    prompt = {"messages": [{"role": "user", "content": "Why?"}], "is_whole": True}
    async with Collector() as collector:
        async with exporting(collector.origin, migrated_file, trace_prompts=True) as traces:
            traces.record(example(attempts=(), prompt=prompt, answer="Because."))
        (root,) = collector.spans
    assert json.loads(root.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Why?"}]}
    ]
    (said,) = json.loads(root.attributes["gen_ai.output.messages"])
    assert said == {"role": "assistant", "parts": [{"type": "text", "content": "Because."}], "finish_reason": "stop"}


async def test_texts_that_must_not_leave_this_machine_are_not_sent(migrated_file: Path) -> None:
    prompt = {"messages": [{"role": "user", "content": "Why?"}], "is_whole": True}
    async with Collector() as collector:
        async with exporting(collector.origin, migrated_file, trace_prompts=True) as traces:
            traces.record(example(attempts=(), prompt=prompt, answer="Because.", local_only=True))
        (root,) = collector.spans
    assert not [name for name in root.attributes if name.endswith(".messages")]


async def test_the_collectors_own_headers_are_sent_to_it_alone(
    migrated_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = new_secret("")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{secret}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-lab")
    async with Collector() as collector:
        async with exporting(collector.origin, migrated_file) as traces:
            traces.record(example())
        (request,) = collector.received(TRACES)
        assert request.headers["authorization"] == f"Bearer {secret}"
        assert not holds_secret(request.body)
        assert collector.spans[0].resource["service.name"] == "my-lab"


@pytest.mark.parametrize("kind", ["nobody", "hangs", "refuses"])
async def test_a_collector_that_takes_nothing_delays_the_end_for_a_bounded_time(
    migrated_file: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Collector() as collector:
        collector.script(TRACES, Reply(status=503) if kind == "refuses" else Reply(ending="hang"))
        url = f"http://127.0.0.1:{free_port()}" if kind == "nobody" else collector.origin
        async with exporting(url, migrated_file, close_seconds=0.3) as traces:
            for _ in range(100):
                traces.record(example())
            started = time.monotonic()
        assert time.monotonic() - started < CLOSE_SECONDS / 2
    assert len([entry for entry in caplog.records if "export" in entry.message]) <= 2


@pytest.mark.parametrize("address", ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "nonsense"])
async def test_an_address_that_is_none_stops_the_start(migrated_file: Path, address: str) -> None:
    with pytest.raises(InvalidSettings, match="OTEL_EXPORTER_OTLP_ENDPOINT must be an address"):
        async with exporting(address, migrated_file):
            pass


def test_a_missing_extra_is_named_with_the_command_and_nothing_is_loaded_without_an_endpoint(tmp_path: Path) -> None:
    program = """
import sys
from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings
from ai_lab.traces.export import SpanExport
import ai_lab.traces
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
SpanExport.open(Settings(otlp_endpoint="http://127.0.0.1:9"))
assert "opentelemetry.sdk" not in sys.modules
sys.modules["opentelemetry"] = None  # as if it were not installed
for name in [name for name in sys.modules if name.startswith("opentelemetry.")]:
    del sys.modules[name]
try:
    SpanExport.open(Settings(otlp_endpoint="http://127.0.0.1:9"))
except InvalidSettings as error:
    sys.exit(error.detail)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=working_folder(tmp_path / "data"),
        env=environment(tmp_path / "data") | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "pip install 'ai-lab[otel]'" in result.stderr, result.stderr


async def test_settings_that_the_sdk_refuses_cost_the_export_and_no_answer(
    migrated_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "nobody")
    async with exporting("http://127.0.0.1:9", migrated_file) as traces:
        traces.record(example())
    async with exporting("http://127.0.0.1:9", migrated_file) as traces:
        traces.record(example())
        traces.record(example())
    assert [entry.message[:26] for entry in caplog.records] == ["traces cannot be exported:"] * 2


async def test_half_characters_do_not_cost_the_spans_beside_them(migrated_file: Path) -> None:
    async with Collector() as collector:
        async with exporting(collector.origin, migrated_file) as traces:
            traces.record(example(attempts=(), options={"stop": ["\ud800"]}, session_id="\ud800"))
            traces.record(example(attempts=()))
        assert len(collector.spans) == 2
