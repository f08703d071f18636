"""Money in the gateway: every attempt that reached a model is charged once, and budgets hold for all clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from ai_lab.costs.schemas import NewBudget
from ai_lab.errors import BudgetExceeded
from ai_lab.gateway.budget import LocalLoad
from ai_lab.lab import Lab
from ai_lab.providers import ChatRequest, Message, ResolvedModel
from ai_lab.settings import PriceEntry, Settings
from tests.costs.attempts import charges, sums
from tests.fakes.faulty_provider import FaultyProvider
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, DONE, delta, stream_reply, text_reply, usage
from tests.gateway.asking import ask, open_lab
from tests.lab_server import serve_lab

#: 7 tokens for a dollar a million and 4 for two dollars.
COST_NANOUSD = 15_000
PRICES = {"faulty/*": PriceEntry(input=1, output=2)}


@pytest.fixture
async def fake() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as fake:
        yield fake


@pytest.fixture
async def lab(fake: FaultyProvider, tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    servers = {"faulty": {"base_url": fake.base_url}, "unpriced": {"base_url": fake.base_url}, **fake.unreachable()}
    async with open_lab(tmp_path, migrated_file, prices=PRICES, servers=servers, retry_attempts=2) as lab:
        yield lab


async def test_the_cost_is_known_when_the_last_piece_is_there(lab: Lab) -> None:
    route = await lab.gateway.route("faulty/ok")

    async def make_request(model: ResolvedModel, _shrink: int) -> ChatRequest:
        return ChatRequest(model.model, [Message("user", "hello")])

    call = lab.gateway.begin(route, make_request, source="openai", session_id="talk")
    async with aclosing(lab.gateway.stream(call)) as chunks:
        async for chunk in chunks:
            if chunk.finish_reason:
                assert call.cost_nanousd == COST_NANOUSD
    await lab.costs.flush()
    (row,) = await charges(lab.database)
    assert (row["id"], row["call_id"], row["session_id"]) == (call.attempts[0].id, call.id, "talk")
    assert (row["source"], row["outcome"], row["cost_nanousd"]) == ("openai", "ok", COST_NANOUSD)


async def test_attempts_that_made_no_token_are_owed_nothing_and_broken_ones_are_unknown(
    lab: Lab, fake: FaultyProvider
) -> None:
    fake.script(CHAT, json_reply({"error": {"message": "broken"}}, 500), text_reply("a", "b", "c", "d"))
    mended = await ask(lab, "faulty/ok")
    assert [attempt.charge and attempt.charge.cost_nanousd for attempt in mended.attempts] == [0, COST_NANOUSD]
    assert mended.call.cost_nanousd == COST_NANOUSD
    unreached = await ask(lab, "refuse/any")
    assert unreached.call.cost_nanousd == 0
    fake.script(CHAT, stream_reply(delta(content="on"), 0.02, ending="reset"))
    broken = await ask(lab, "faulty/ok")
    assert broken.call.cost_nanousd is None
    await lab.costs.flush()
    assert await sums(lab.database) == (COST_NANOUSD, 5, COST_NANOUSD, 5)
    assert (await lab.costs.summary("model")).totals.unknown_costs == 1


async def test_a_client_that_leaves_leaves_an_unknown_cost(lab: Lab, fake: FaultyProvider) -> None:
    fake.script(CHAT, stream_reply(delta(content="on"), 0.05, delta(content="and on"), ending="hang"))
    route = await lab.gateway.route("faulty/ok")

    async def make_request(model: ResolvedModel, _shrink: int) -> ChatRequest:
        return ChatRequest(model.model, [Message("user", "hello")])

    call = lab.gateway.begin(route, make_request, source="openai")
    async with aclosing(lab.gateway.stream(call)) as chunks:
        await anext(chunks)
    assert [(one.outcome, one.charge and one.charge.cost_nanousd) for one in call.attempts] == [("cancelled", None)]


async def test_a_client_that_leaves_at_the_end_pays_once(lab: Lab, fake: FaultyProvider) -> None:
    fake.script(CHAT, stream_reply(delta(content="all"), delta("stop"), usage(7, 4), DONE))
    for _ in range(2):
        answered = await ask(lab, "faulty/ok")
        assert answered.call.cost_nanousd == COST_NANOUSD
    await lab.costs.flush()
    assert (await sums(lab.database))[:2] == (2 * COST_NANOUSD, 2)


async def test_embeddings_are_charged_too(lab: Lab) -> None:
    answered = await ask(lab, "faulty/ok", texts=["one", "two"])
    assert answered.call.cost_nanousd == 5000, "five tokens in; nothing comes out that is paid for"


async def test_a_refused_model_was_not_asked_and_the_next_one_is(lab: Lab, fake: FaultyProvider) -> None:
    await lab.costs.budgets.create(NewBudget(name="none", period="day", service="faulty", hard_usd=0))
    refused = await ask(lab, "faulty/ok")
    assert isinstance(refused.error, BudgetExceeded)
    assert refused.outcomes == [("faulty/ok", "refused")]
    assert refused.call.cost_nanousd == 0
    assert fake.asked.total() == 0
    assert (await ask(lab, "echo/echo")).text == "hello"
    await lab.costs.flush()
    assert [row["service"] for row in await charges(lab.database)] == ["echo"]


async def test_a_soft_limit_is_told_once_in_an_answer(lab: Lab) -> None:
    await lab.costs.budgets.create(NewBudget(name="soft", period="day", soft_usd=0))
    answered = await ask(lab, "faulty/ok")
    (warning,) = answered.call.warnings
    assert warning.startswith("The soft limit of the budget 'soft' is reached")
    assert (await ask(lab, "echo/echo")).call.warnings == []


async def test_fifty_clients_of_a_server_at_a_hard_limit(
    fake: FaultyProvider, tmp_path: Path, database_url: str
) -> None:
    settings = Settings.load(
        data_dir=tmp_path / "data",
        database_url=database_url,
        enable_metrics=False,
        default_model="echo/echo",
        prices=PRICES,
        servers={"faulty": {"base_url": fake.base_url}},
        rate_limits=False,
    )
    answered = refused = 0

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal answered, refused
        body = {"model": "faulty/ok", "messages": [{"role": "user", "content": "hello"}]}
        while True:
            response = await http.post("/v1/chat/completions", json=body)
            if response.status_code != 200:
                assert response.status_code == 402, response.text
                assert int(response.headers["retry-after"]) > 0
                refused += 1
                return
            answered += 1

    async with serve_lab(settings) as server:
        lab = server.lab
        await lab.costs.budgets.create(NewBudget(name="all", period="month", hard_usd=8 * COST_NANOUSD / 10**9))
        async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=httpx.Limits(max_connections=50)) as http:
            await asyncio.gather(*(client(http) for _ in range(50)))
        spent = answered * COST_NANOUSD
        assert refused == 50
        assert 8 <= answered < 8 + 50
        assert fake.asked["ok"] == answered
        assert await sums(lab.database) == (spent, answered, spent, answered)


async def test_the_machine_is_shared_by_the_answers_in_the_making() -> None:
    """The shares add up to the time in which anything was made, whatever the overlap."""
    load = LocalLoad()
    loop = asyncio.get_running_loop()
    shares: list[float] = []

    async def answer(seconds: float, *, is_local: bool = True) -> None:
        began = loop.time()
        with load.during(is_local=is_local) as meter:
            await asyncio.sleep(seconds)
            took = loop.time() - began
            shares.append(took / meter.mean())

    began = loop.time()
    await asyncio.gather(answer(0.1), answer(0.3), answer(0.2))
    assert sum(shares) == pytest.approx(loop.time() - began, rel=0.1)
    shares.clear()
    await asyncio.gather(answer(0.1), answer(0.1, is_local=False))
    assert shares[0] == pytest.approx(0.1, rel=0.2), "an answer made elsewhere takes no part"
