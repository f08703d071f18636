"""Costs, budgets, traces, stored answers and breakers by both clients; the server's echo costs a dollar a token."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ai_lab.client import AsyncLabClient, LabClient
from ai_lab.clock import new_id
from ai_lab.errors import (
    BudgetExceeded,
    BudgetNotFound,
    CachedAnswerNotFound,
    InvalidRequest,
    NotFound,
    ProviderUnavailable,
    TraceNotFound,
)
from tests.client.either_client import Kind
from tests.server import ServerProcess, free_port

ECHO = {"model": "echo/echo"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {
        "AI_LAB_CACHE": "true",
        "AI_LAB_RETRY_ATTEMPTS": "1",
        "AI_LAB_BREAKER_FAILURES": "1",
        "AI_LAB_PRICES": json.dumps({"echo/*": {"input": 1e6, "output": 1e6}, "opnai/*": {"input": 1}}),
        "AI_LAB_SERVERS": json.dumps({"dead": f"http://127.0.0.1:{free_port()}/v1"}),
    }
    with ServerProcess(tmp_path_factory.mktemp("gateway") / "data", settings) as server:
        yield server


class Either:
    """``LabClient`` in a thread, or ``AsyncLabClient``; methods of their parts by name, as in ``costs.summary``."""

    def __init__(self, kind: Kind, url: str) -> None:
        self._client: Any = LabClient(url) if kind == "sync" else AsyncLabClient(url)
        self._is_sync = kind == "sync"

    async def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        method: Any = self._client
        for part in name.split("."):
            method = getattr(method, part)
        if self._is_sync:
            return await asyncio.to_thread(method, *arguments, **options)
        return await method(*arguments, **options)


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Either]:
    client = Either(request.param, server.url)
    yield client
    await client("close")


async def test_what_was_spent_and_its_limits(client: Either, tmp_path: Path) -> None:
    await client("chat", new_id(), **ECHO)
    summary = await client("costs.summary", "service")
    assert [group.key for group in summary.groups] == ["echo"]
    assert summary.totals.cost_usd == 2 * summary.totals.attempts
    assert (await client("costs.summary", end=date(2020, 1, 1))).totals.attempts == 0
    assert (await client("costs.summary", end="2020-01-01")).totals.attempts == 0
    with pytest.raises(InvalidRequest, match="to: "):
        await client("costs.reprice", end="yesterday")
    file = await client("costs.export", str(tmp_path / "costs.csv"))
    with file.open(encoding="utf-8", newline="") as lines:
        assert [line["cost_usd"] for line in csv.DictReader(lines)] == ["2.000000000"] * summary.totals.attempts
    assert (await client("costs.reprice", dry_run=True)).changed == 0
    for name, arguments in (("summary", ()), ("export", (tmp_path / "none.csv",)), ("reprice", ())):
        with pytest.raises(InvalidRequest, match="`from` must be before `to`"):
            await client(f"costs.{name}", *arguments, start=date(2026, 1, 2), end=date(2026, 1, 1))
    assert not (tmp_path / "none.csv").exists()

    made = await client("budgets.set", "team", hard_usd=1, period="day", model="echo")
    assert (made.service, made.model, made.period, made.state) == ("echo", None, "day", "hard")
    with pytest.raises(BudgetExceeded):
        await client("chat", new_id(), **ECHO)
    changed = await client("budgets.set", "team", hard_usd=1000)
    assert (changed.id, changed.hard_usd, changed.period, changed.service) == (made.id, 1000, "day", "echo")
    assert [one.name for one in await client("budgets.list")] == ["team"]
    assert (await client("budgets.remove", "team")).id == made.id
    with pytest.raises(BudgetNotFound):
        await client("budgets.remove", "team")
    with pytest.raises(InvalidRequest, match="give soft_usd, hard_usd or both"):
        await client("budgets.set", "nothing")


async def test_how_an_answer_came_about(client: Either) -> None:
    question = new_id()
    answer = await client("chat", question, **ECHO)
    since = datetime.now(UTC)
    (newest,) = await client("traces.list", limit=1, session_id=answer.session_id, status="complete", end=since)
    assert (newest.id, newest.cost) == (answer.trace_id, 2)
    assert await client("traces.list", provider="nobody") == await client("traces.list", start=since) == []
    assert await client("traces.list", session_id=answer.session_id, start=since.isoformat()) == []
    assert len(await client("traces.list", model="echo/echo", limit=2)) <= 2
    trace = await client("traces.get", answer.trace_id)
    assert [attempt.outcome for attempt in trace.attempts] == ["ok"]
    both = await client("traces.replay", answer.trace_id, "echo/echo")
    assert (both.original.text, both.replay.text, both.replay.cache) == (question, question, "bypass")
    with pytest.raises(TraceNotFound):
        await client("traces.get", new_id())


async def test_stored_answers_are_counted_and_removed(client: Either) -> None:
    assert await client("cache.clear") >= 0
    question = new_id()
    await client("chat", question, **ECHO)
    assert (await client("cache.stats")).entries == 1  # it is written before it is counted
    again = await client("chat", question, **ECHO)
    assert again.cached
    assert (await client("cache.stats")).hits > 0
    page = await client("cache.page", limit=1)
    assert [entry.key for entry in page.data] == [again.cache.key]
    await client("cache.evict", again.cache.key)
    with pytest.raises(CachedAnswerNotFound):
        await client("cache.evict", again.cache.key)
    await client("chat", question, **ECHO)
    assert await client("cache.clear") == 1


async def test_a_model_that_is_left_alone_is_shown_and_tried_again(client: Either) -> None:
    with pytest.raises(ProviderUnavailable):
        await client("chat", "Hi", model="dead/org/model:8b")
    (breaker,) = await client("breakers.list")
    assert (breaker.provider, breaker.model, breaker.state) == ("dead", "org/model:8b", "open")
    await client("breakers.reset", "dead/org/model:8b")
    assert await client("breakers.list") == []
    with pytest.raises(NotFound):
        await client("breakers.reset", "dead")


async def test_names_that_no_service_has_are_told_there_and_in_the_log(client: Either, server: ServerProcess) -> None:
    (warning,) = (await client("gateway")).warnings
    assert warning == "AI_LAB_PRICES, opnai/*: no service is called 'opnai'. Did you mean openai?"
    deadline = time.monotonic() + 30
    while warning not in server.log:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
