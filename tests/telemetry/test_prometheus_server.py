"""A real Prometheus scrapes a real server: nothing fails, traces are found, and the series stay as few as they are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connection import Connection
from tests.prometheus import PrometheusServer, needs_prometheus
from tests.server import ServerProcess

pytestmark = needs_prometheus

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
_SERIES = 'count by (job) ({__name__=~"ai_lab_(http|llm|function|db)_.+"})'
_REQUESTS = "sum by (job) (ai_lab_http_requests_total)"

_ECHO_TOKENS = 'sum by (job) (ai_lab_llm_tokens_total{model="echo",token_type="output"})'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", {"AI_LAB_RATE_LIMITS": "false"}) as process:
        yield process


async def _send(url: str, requests: int) -> None:
    """Send requests of every kind that a stranger may think of, under ever new names."""
    async with Connection(url) as client:
        for number in range(requests):
            name = secrets.token_hex(6)
            match number % 8:
                case 0:
                    model = f"{('echo', 'ollama', name)[number % 3]}/{name}"
                    await client.request("POST", "/chat", {"message": "hello", "model": model})
                case 1:
                    await client.request("GET", f"/conversations/{name}")
                case 2:
                    await client.request("PROPFIND", f"/{name}")
                case 3:
                    await client.request("GET", f"/docs/assets/{name}")
                case _:
                    await client.request("GET", f"/{name}/{name}?q={name}")


async def _chat(url: str) -> None:
    """Send a known question under a known trace, after every series that scrapes themselves make."""
    async with Connection(url) as client:
        for path in ("/metrics", "/metrics/prometheus") * 2:
            await client.request("GET", path, accept="text/plain")
        body = {"message": "one two three", "model": "echo/echo"}
        answer = await client.request("POST", "/chat", body, traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01")
        assert answer.status == 200


def _both_have_seen(prometheus: PrometheusServer, requests: int) -> bool:
    seen = prometheus.by_job(_REQUESTS)
    return set(seen) == {"negotiated", "always"} and min(seen.values()) > requests


def test_prometheus_is_content_and_strangers_add_no_series(
    server: ServerProcess, tmp_path: Path, *, thorough: bool
) -> None:
    requests = 10_000 if thorough else 2_000
    both = {"negotiated": f"{server.url}/metrics", "always": f"{server.url}/metrics/prometheus"}
    with PrometheusServer(tmp_path / "prometheus", both) as prometheus:
        asyncio.run(_chat(server.url))
        asyncio.run(_send(server.url, 200))
        prometheus.wait_until(lambda: _both_have_seen(prometheus, 200))
        before = prometheus.by_job(_SERIES)
        asyncio.run(_send(server.url, requests))
        asyncio.run(_chat(server.url))  # the last one: a bucket has one exemplar
        prometheus.wait_until(lambda: prometheus.by_job(_ECHO_TOKENS) == {"negotiated": 6, "always": 6})
        assert _both_have_seen(prometheus, requests + 200)
        assert prometheus.by_job(_SERIES) == before

        assert prometheus.by_job("min by (job) (min_over_time(up[5m]))") == {"negotiated": 1, "always": 1}
        assert prometheus.by_job("max by (job) (resets(ai_lab_http_requests_total[5m]))") == {
            "negotiated": 0,
            "always": 0,
        }
        assert [target["lastError"] for target in prometheus.targets()] == ["", ""]
        assert not [line for line in prometheus.log.splitlines() if "level=warn" in line or "level=error" in line]
        for name in ("http_request_duration", "llm_request_duration", "llm_time_to_first_token"):
            assert {"trace_id": TRACE_ID} in prometheus.exemplars(f"ai_lab_{name}_seconds_bucket"), name
        assert set(prometheus.by_job("count by (job) (ai_lab_host_memory_total_bytes)")) == {"negotiated", "always"}
