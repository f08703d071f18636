"""Health, metrics, history and the summary over HTTP, from a real server inside this process."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ai_lab.settings import Settings
from tests.lab_server import LabServer, serve_lab

FLAT = (
    "cpu_usage_percent",
    "memory_usage_percent",
    "memory_usage_bytes",
    "gpu_utilization_percent",
    "gpu_memory_used_mb",
    "gpu_memory_total_mb",
    "gpu_temperature_c",
)
#: What a Prometheus of version 2.42 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def _settings(url: str, tmp_path: Path, *, enable_metrics: bool = True) -> Settings:
    return Settings(
        data_dir=tmp_path,
        ollama_host="http://127.0.0.1:9",
        database_url=url,
        metrics_interval_seconds=1,
        enable_metrics=enable_metrics,
    )


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[LabServer]:
    async with serve_lab(_settings(database_url, tmp_path)) as server:
        yield server


@pytest.fixture
async def client(server: LabServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


async def test_the_first_answer_is_a_whole_sample_with_the_earlier_names(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["vary"] == "Accept"
    metrics = answer.json()
    assert set(FLAT) <= set(metrics)
    assert metrics["cpu_usage_percent"] > 0  # this very process has just started a server
    assert metrics["memory_usage_bytes"] == metrics["memory"]["used_bytes"]
    assert 0 <= metrics["sample_age_seconds"] < 30
    assert metrics["process"]["rss_bytes"] > 10_000_000


async def test_a_sample_ages_and_is_replaced(client: httpx.AsyncClient) -> None:
    first = (await client.get("/metrics")).json()
    deadline = time.monotonic() + 60
    while (newer := (await client.get("/metrics")).json())["timestamp"] == first["timestamp"]:
        assert newer["sample_age_seconds"] >= first["sample_age_seconds"]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert newer["timestamp"] > first["timestamp"]


async def test_prometheus_gets_its_own_format_at_both_addresses(client: httpx.AsyncClient) -> None:
    openmetrics = await client.get("/metrics", headers={"Accept": PROMETHEUS})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")
    text = await client.get("/metrics/prometheus")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "ai_lab_build_info" in text.text
    assert (await client.get("/metrics", headers={"Accept": "text/html, */*"})).json()["cpu"]["count"] >= 1


async def test_history_grows_with_every_sample(client: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + 60
    await client.get("/metrics")
    while True:
        answer = await client.get("/metrics/history", params={"metric": "cpu_usage_percent", "step": 1})
        assert answer.status_code == 200
        points = [point for series in answer.json()["series"] for point in series["points"]]
        if len(points) >= 2:
            break
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.3)
    assert all(least <= mean <= greatest for _, mean, least, greatest in points)
    assert "cpu_usage_percent" in {known["metric"] for known in (await client.get("/metrics/series")).json()}


async def test_questions_about_history_that_cannot_be_answered_name_the_remedy(client: httpx.AsyncClient) -> None:
    await client.get("/metrics/history", params={"metric": "cpu_usage_percent"})
    unknown = await client.get("/metrics/history", params={"metric": "cpu_usage_procent"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "metric_not_found")
    assert "cpu_usage_percent" in unknown.json()["near_matches"]
    backwards = {"metric": "cpu_usage_percent", "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    answer = await client.get("/metrics/history", params=backwards)
    assert (answer.status_code, answer.json()["param"]) == (422, "from")
    assert "`from` must be before `to`" in answer.json()["detail"]
    early = {"metric": "cpu_usage_percent", "to": "0001-01-01T00:30:00Z"}
    assert (await client.get("/metrics/history", params=early)).status_code == 422
    few = {"metric": "cpu_usage_percent", "max_points": "7"}
    assert (await client.get("/metrics/history", params=few)).json()["step_seconds"] == 3600 / (7 - 1)
    assert (await client.get("/metrics/history", params=few | {"max_points": "5001"})).status_code == 422
    fine = {"metric": "cpu_usage_percent", "from": str(time.time() - 86400), "step": "1"}
    assert (await client.get("/metrics/history", params=fine)).status_code == 400
    assert (await client.get("/metrics/history", params={"metric": "x", "from": "yesterday"})).status_code == 422


async def test_the_summary_counts_every_call_by_its_route(client: httpx.AsyncClient) -> None:
    for _ in range(7):
        await client.post("/chat", json={"message": "hello", "model": "echo/echo"})
    for number in range(5):
        assert (await client.get(f"/conversations/unknown-{number}")).status_code == 404
    answer = await client.get("/performance/summary", params={"hours": 1})
    summary = answer.json()
    assert {"uptime_seconds", "current_metrics", "timestamp"} <= set(summary)
    by_route = {(row["method"], row["route"]): row for row in summary["http"]["by_route"]}
    chat = by_route["POST", "/chat"]
    assert (chat["count"], chat["errors"]) == (7, 0)
    assert chat["min_ms"] <= chat["p50_ms"] <= chat["p95_ms"] <= chat["p99_ms"] <= chat["max_ms"]
    assert by_route["GET", "/conversations/{session_id}"]["count"] == 5
    assert any(row["count"] for row in summary["database"])
    models = {(row["provider"], row["model"]): row for row in summary["llm"]["by_model"]}
    assert models["echo", "echo"]["requests"] == 7
    assert 'ai_lab_chat_turns_total{outcome="complete"} 7.0' in (await client.get("/metrics/prometheus")).text
    for hours in ("0", "-1", "nan", "1e9"):
        assert (await client.get("/performance/summary", params={"hours": hours})).status_code == 422


async def test_health_keeps_the_names_of_earlier_clients(client: httpx.AsyncClient) -> None:
    await client.get("/metrics")
    summary = (await client.get("/health")).json()
    assert summary["status"] in {"healthy", "degraded"}
    assert summary["database"] == "connected"
    assert abs(time.time() - summary["timestamp"]) < 60
    assert tuple(summary["metrics"]) == FLAT
    detailed = (await client.get("/health/detailed")).json()
    for component in detailed["components"]:
        assert {"component", "status", "detail", "latency_ms", "checked_at"} <= set(component)
    assert (await client.get("/health/ready")).status_code == 200
    assert (await client.get("/health/live")).json() == {"status": "alive"}


async def test_metrics_can_be_switched_off(database_url: str, tmp_path: Path) -> None:
    settings = _settings(database_url, tmp_path, enable_metrics=False)
    async with serve_lab(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        answer = await client.get("/metrics")
        assert (answer.status_code, answer.json()["code"]) == (503, "metrics_unavailable")
        assert "ENABLE_METRICS" in answer.json()["detail"]
        exposition = (await client.get("/metrics/prometheus")).text
        assert "ai_lab_http_requests_total{" in exposition
        assert "ai_lab_host_memory_total_bytes " not in exposition
        assert (await client.get("/health")).json()["metrics"] is None
        assert (await client.get("/performance/summary")).status_code == 200
