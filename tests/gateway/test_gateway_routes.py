"""``/gateway``: the rules, what is in use, and breakers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio

from ai_lab.errors import ProviderUnavailable
from ai_lab.settings import Settings
from tests.fakes.faulty_provider import FaultyProvider
from tests.lab_server import LabServer, serve_lab


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as fake:
        yield fake


@pytest_asyncio.fixture
async def server(tmp_path: Path, fake: FaultyProvider) -> AsyncIterator[LabServer]:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "servers": {"faulty": {"base_url": fake.base_url}},
            "aliases": {"fast": {"models": ["faulty/tiny", "echo/echo"]}},
            "service_limits": {"faulty": {"concurrency": 3, "tokens": "90000/minute"}},
            "prices": {"fualty/*": {"input": 1}},
            "breaker_failures": 2,
            "breaker_seconds": 45,
            "enable_metrics": False,
        }
    )
    async with serve_lab(settings) as server:
        yield server


async def test_the_overview_has_rules_and_what_is_in_use(server: LabServer) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http, server.lab.queue.place("faulty"):
        seen = (await http.get("/gateway")).json()
    assert seen["aliases"]["fast"] == {"models": ["faulty/tiny", "echo/echo"], "strategy": "order", "weights": None}
    assert seen["retry"] == {"attempts": 3, "wait_seconds": 0.01, "deadline_seconds": 600.0}
    assert seen["breaker"] == {"failures": 2, "seconds": 45.0}
    assert seen["warnings"] == [
        "AI_LAB_PRICES, fualty/*: no service is called 'fualty'. Did you mean faulty?",
    ]
    (service,) = seen["services"]
    assert service == {
        "service": "faulty",
        "concurrency": 3,
        "is_shared": False,
        "in_use": 1,
        "waiting": 0,
        "requests": None,
        "tokens": "90000/minute",
    }


async def test_a_breaker_is_shown_and_closed_by_hand(server: LabServer) -> None:
    for _ in range(2):
        admission = await server.lab.breakers.admit("faulty", "org/model:8b")
        admission.failed(ProviderUnavailable("nobody listens"))
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        (breaker,) = (await http.get("/gateway/breakers")).json()["breakers"]
        assert (breaker["model"], breaker["state"], breaker["failures"]) == ("org/model:8b", "open", 2)
        assert (breaker["error_code"], breaker["reason"]) == ("provider_unavailable", "nobody listens")
        assert 40 < breaker["retry_after_seconds"] <= 45
        metrics = (await http.get("/metrics/prometheus")).text
        assert 'llm_circuit_breaker_state{provider="faulty",model="org/model:8b",state="open"} 1' in metrics
        assert (await http.delete("/gateway/breakers/faulty/org/model:8b")).status_code == 204
        assert (await http.get("/gateway/breakers")).json() == {"breakers": []}
        again = await http.delete("/gateway/breakers/faulty/org/model:8b")
        assert (again.status_code, again.json()["code"]) == (404, "not_found")


async def test_a_client_that_leaves_gives_its_place_back_and_is_no_failure(
    server: LabServer, fake: FaultyProvider
) -> None:
    body = {"model": "faulty/endless", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        for _ in range(4):  # more than there are places, and failures that are borne
            async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    break
        async with asyncio.timeout(30):
            while True:
                (service,) = (await http.get("/gateway")).json()["services"]
                if not service["in_use"]:
                    break
                await asyncio.sleep(0.02)
        assert (await http.get("/gateway/breakers")).json() == {"breakers": []}
    assert fake.asked["endless"] == 4
