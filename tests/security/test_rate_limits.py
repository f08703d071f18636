"""Who asks too often is told when to go on; everybody else, and every probe, is answered."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.client import AsyncLabClient
from ai_lab.client.connection import Attempts
from ai_lab.errors import RateLimited
from ai_lab.settings import Settings
from backend.rate_limits import _network_of
from tests.lab_server import LabServer, serve_lab
from tests.postgres import PostgresServer

_TOKEN = f"CANARY{secrets.token_hex(32)}"


@contextlib.asynccontextmanager
async def _served(folder: Path, **settings: Any) -> AsyncIterator[tuple[LabServer, httpx.AsyncClient]]:
    values = {
        "data_dir": folder,
        "config_dir": folder / "config",
        "database_url": None,
        "ollama_host": "http://127.0.0.1:9",
        "default_model": "echo/echo",
    }
    async with (
        serve_lab(Settings.model_validate(values | settings)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
    ):
        yield server, http


async def test_who_asks_too_often_is_told_when_to_go_on(tmp_path: Path) -> None:
    limits = {"rate_limit_requests": "4/hour", "rate_limit_model_calls": "3/hour", "rate_limit_keys": "2/hour"}
    async with _served(tmp_path, **limits) as (_, http):
        answers = [await http.get("/conversations") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        assert [answer.headers["ratelimit-limit"] for answer in answers] == ["4"] * 6
        assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["3", "2", "1", "0", "0", "0"]
        refused = answers[-1]
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "rate_limited"
        assert "AI_LAB_RATE_LIMIT_REQUESTS" in refused.json()["detail"]
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert 1 <= int(refused.headers["retry-after"]) == int(refused.headers["ratelimit-reset"]) <= 3601

        # Each endpoint by itself; what a name stands in for, and what there is not, as one.
        assert (await http.get("/agents/a/states")).status_code == 404
        found = [(await http.get(f"/conversations/{number}")).status_code for number in range(5)]
        assert found == [404] * 4 + [429]
        assert [(await http.get(f"/{number}/x")).status_code for number in range(5)] == [404] * 4 + [429]

        # Whatever a model answers, together; under /v1 in OpenAI's shape.
        assert (await http.post("/chat", json={"message": "Hello"})).status_code == 200
        body = {"model": "echo/echo", "messages": [{"role": "user", "content": "Hello"}]}
        assert (await http.post("/v1/chat/completions", json=body)).headers["ratelimit-remaining"] == "1"
        assert (await http.post("/benchmarks", json={})).headers["ratelimit-remaining"] == "0"
        refused = await http.post("/v1/chat/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert refused.headers["retry-after"]

        # Changes of keys, not looking at them.
        changes = [(await http.post("/api-keys", json={})).status_code for _ in range(3)]
        assert changes[2] == 429
        assert 429 not in changes[:2]
        assert (await http.get("/api-keys")).status_code == 200

        for path in ("/health", "/health/live", "/health/ready"):
            probes = [await http.get(path) for _ in range(5)]
            assert {probe.status_code for probe in probes} <= {200, 503}
            assert "ratelimit-limit" not in probes[0].headers

        # Somebody else is not held up.
        other = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(base_url=http.base_url, transport=other, timeout=60) as neighbour:
            assert (await neighbour.get("/conversations")).status_code == 200


async def test_vectors_and_replays_are_model_calls_and_looking_is_not(tmp_path: Path) -> None:
    async with _served(tmp_path, rate_limit_model_calls="4/hour", trace_prompts=True) as (_, http):
        trace_id = (await http.post("/chat", json={"message": "Hello"})).json()["trace_id"]
        replayed = await http.post(f"/traces/{trace_id}/replay", json={"model": "echo/echo"})
        assert (replayed.status_code, replayed.headers["ratelimit-remaining"]) == (200, "2")
        vectors = await http.post("/v1/embeddings", json={"model": "echo/echo", "input": "Hello"})
        assert vectors.headers["ratelimit-remaining"] == "1"
        unknown = await http.post("/traces/none/replay", json={"model": "echo/echo"})
        assert (unknown.status_code, unknown.headers["ratelimit-remaining"]) == (404, "0")
        for path in (f"/traces/{trace_id}/replay", "/v1/embeddings", "/chat", "/v1/chat/completions"):
            assert (await http.post(path, json={})).status_code == 429, path
        for path in (
            "/traces",
            f"/traces/{trace_id}",
            "/costs/summary",
            "/cache/stats",
            "/budgets",
            "/gateway/breakers",
        ):
            assert (await http.get(path)).status_code == 200, path


async def test_switched_off_nobody_is_counted(tmp_path: Path) -> None:
    async with _served(tmp_path, rate_limits=False, rate_limit_requests="1/minute") as (_, http):
        answers = [await http.get("/conversations") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert "ratelimit-limit" not in answers[0].headers


async def test_guessing_tokens_ends_soon_and_locks_nobody_out(tmp_path: Path) -> None:
    async with _served(tmp_path, require_token=True, token=_TOKEN, rate_limit_failures="10/hour") as (_, http):
        wrong = {"authorization": f"Bearer {'x' * 43}"}
        codes = [(await http.get("/conversations", headers=wrong)).status_code for _ in range(20)]
        assert codes == [401] * 10 + [429] * 10
        refused = await http.get("/conversations", headers=wrong)
        assert int(refused.headers["retry-after"]) >= 1
        right = {"authorization": f"Bearer {_TOKEN}"}
        assert (await http.get("/conversations", headers=right)).status_code == 200
        assert (await http.get("/health/live", headers=wrong)).status_code == 200


async def test_our_client_waits_and_sends_again(tmp_path: Path) -> None:
    async with (
        _served(tmp_path, rate_limit_requests="2 per 1 second") as (server, _),
        AsyncLabClient(server.url) as lab,
    ):
        for number in range(3):
            await lab.save_agent_state(f"agent-{number}", message="busy")
    with pytest.raises(RateLimited):
        Attempts(server.url).pause_seconds(RateLimited(retry_after_seconds=31))


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_who_has_one_address_of_a_network_has_all_of_them(address: str, counted_as: str) -> None:
    assert _network_of(address) == counted_as


@pytest.fixture
def shared_url(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    name = postgres.migrated(migrated_template)
    yield postgres.url(name)
    postgres.give_back(name)


async def test_servers_on_one_database_count_together(tmp_path: Path, shared_url: str) -> None:
    settings = {"database_url": shared_url, "rate_limit_requests": "10/hour"}
    async with _served(tmp_path / "a", **settings) as (_, one), _served(tmp_path / "b", **settings) as (_, other):
        codes = [(await http.get("/conversations")).status_code for http in (one, other) * 8]
        assert codes == [200] * 10 + [429] * 6
