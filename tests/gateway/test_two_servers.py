"""Two servers on one Postgres: one cache, one budget, one state of a breaker, one limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.faulty_provider import FaultyProvider
from tests.postgres import PostgresServer
from tests.server import ServerProcess

FAILURES, ALLOWED = 4, 5
SECONDS = 20.0


class Pair:
    """A client for each of the two servers, and the service that both ask."""

    def __init__(self, fake: FaultyProvider, first: httpx.AsyncClient, second: httpx.AsyncClient) -> None:
        self.fake = fake
        self.both = (first, second)

    async def ask(self, which: int, model: str, question: str = "Hello", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": question}], **more}
        return await self.both[which].post("/v1/chat/completions", json=body)

    async def seen(self, which: int, path: str) -> Any:
        """Wait until one server shows something there: they look at each other's changes once or twice a second."""
        async with asyncio.timeout(SECONDS):
            while not (found := next(iter((await self.both[which].get(path)).json().values()))):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(
    postgres: PostgresServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    name = postgres.migrated(migrated_template)
    folder: Path = tmp_path_factory.mktemp("two")
    async with FaultyProvider() as fake:
        settings = {
            "DATABASE_URL": postgres.url(name),
            "AI_LAB_CONFIG_DIR": str(folder / "config"),
            "AI_LAB_SERVERS": json.dumps(dict.fromkeys(("fake", "limited", "paid"), fake.base_url)),
            "AI_LAB_CACHE": "true",
            "AI_LAB_RETRY_ATTEMPTS": "1",
            "AI_LAB_BREAKER_FAILURES": str(FAILURES),
            "AI_LAB_SERVICE_LIMITS": json.dumps({"limited": {"requests": f"{ALLOWED}/hour"}}),
            "AI_LAB_PRICES": json.dumps({"paid/*": {"input": 1.0, "output": 1.0}}),
        }
        with ServerProcess(folder / "a", settings) as one, ServerProcess(folder / "b", settings) as other:
            async with (
                httpx.AsyncClient(base_url=one.url, timeout=SECONDS) as first,
                httpx.AsyncClient(base_url=other.url, timeout=SECONDS) as second,
            ):
                yield Pair(fake, first, second)
    postgres.give_back(name)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_one_has_answered_the_other_knows(pair: Pair) -> None:
    before = pair.fake.asked["ok"]
    assert (await pair.ask(0, "fake/ok", "Once?")).headers["x-ai-lab-cache"] == "miss"
    await pair.seen(1, "/cache")
    answered = await pair.ask(1, "fake/ok", "Once?")
    assert answered.headers["x-ai-lab-cache"] == "hit"
    assert pair.fake.asked["ok"] == before + 1
    assert (await pair.both[1].delete("/cache")).json()["deleted"] >= 1
    async with asyncio.timeout(SECONDS):
        while (await pair.ask(0, "fake/ok", "Once?")).headers["x-ai-lab-cache"] == "hit":  # noqa: ASYNC110 - as in ``seen``
            await asyncio.sleep(0.1)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_one_has_spent_is_spent_for_both(pair: Pair) -> None:
    # An answer has 7 and 4 tokens, at a dollar for a million.
    budget = {"name": "both", "period": "month", "service": "paid", "hard_usd": 0.00002}
    assert (await pair.both[0].post("/budgets", json=budget)).status_code == 201
    await asyncio.sleep(1.5)  # the other server looks for budgets once a second
    answers = [await pair.ask(which, "paid/ok", f"Question {which}", use_cache=False) for which in (0, 1)]
    assert [answer.status_code for answer in answers] == [200, 200]
    for which in (1, 0):
        refused = await pair.ask(which, "paid/ok", "One more", use_cache=False)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")
    [seen] = (await pair.both[1].get("/budgets")).json()["budgets"]
    assert seen["used_usd"] == pytest.approx(0.000022)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_that_fails_at_both_is_left_alone_by_both(pair: Pair) -> None:
    for turn in range(FAILURES):
        failed = await pair.ask(turn % 2, "fake/error_500", f"Failure {turn}")
        assert failed.json()["error"]["code"] == "provider_error"
    for which in (0, 1):
        assert [breaker["state"] for breaker in await pair.seen(which, "/gateway/breakers")] == ["open"]
        refused = await pair.ask(which, "fake/error_500", "And now?")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "breaker_open")
    assert pair.fake.asked["error_500"] == FAILURES
    assert (await pair.both[1].delete("/gateway/breakers/fake/error_500")).status_code == 204


@pytest.mark.asyncio(loop_scope="module")
async def test_both_together_ask_a_service_no_more_than_is_allowed(pair: Pair) -> None:
    for turn in range(ALLOWED):
        assert (await pair.ask(turn % 2, "limited/ok", f"Request {turn}")).status_code == 200
    for which in (0, 1):
        refused = await pair.ask(which, "limited/ok", f"Too many {which}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "service_limited")
        assert int(refused.headers["retry-after"]) > 1
