"""Many clients at once on services that die: how often those are asked, and what the clients get."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ai_lab.lab import Lab
from tests.fakes.faulty_provider import ANSWER, FaultyProvider
from tests.gateway.asking import Answered, ask, open_lab

CLIENTS = 100
FAILURES = 5
PLACES = 8


@asynccontextmanager
async def _lab(
    folder: Path, migrated_file: Path, fakes: dict[str, FaultyProvider], **settings: Any
) -> AsyncIterator[Lab]:
    servers = {name: {"base_url": fake.base_url} for name, fake in fakes.items()}
    given = {"servers": servers, "breaker_failures": FAILURES, "cache": False} | settings
    async with open_lab(folder, migrated_file, **given) as lab:
        yield lab


def _result(answered: Answered) -> str:
    return answered.error.code if answered.error else answered.text


async def _storm(lab: Lab, model: str, clients: int = CLIENTS) -> Counter[str]:
    return Counter(_result(one) for one in await asyncio.gather(*(ask(lab, model) for _ in range(clients))))


@pytest.mark.parametrize("fault", ["error_500", "silent"])
async def test_a_dead_provider_is_asked_no_more_than_the_breaker_allows(
    tmp_path: Path, migrated_file: Path, fault: str
) -> None:
    limits = {"dead": {"concurrency": PLACES}}
    async with (
        FaultyProvider() as fake,
        _lab(tmp_path, migrated_file, {"dead": fake}, service_limits=limits, request_timeout_seconds=0.3) as lab,
    ):
        fake.fault = fault
        got = await _storm(lab, "dead/tiny")
        assert FAILURES <= fake.asked["tiny"] < FAILURES + PLACES
        assert got["breaker_open"] > CLIENTS / 2
        assert set(got) <= {"breaker_open", "provider_error", "provider_timeout"}
        refused = await ask(lab, "dead/tiny")
        assert refused.outcomes == [("dead/tiny", "refused")]
        assert refused.call.cost_nanousd == 0

        fake.fault = "ok"
        assert await _storm(lab, "dead/tiny", 5) == {"breaker_open": 5}
        await lab.breakers.reset("dead", "tiny")
        assert await _storm(lab, "dead/tiny", 20) == {ANSWER: 20}
        assert await lab.breakers.states() == []


async def test_one_request_tries_a_dead_provider_again(tmp_path: Path, migrated_file: Path) -> None:
    async with FaultyProvider() as fake, _lab(tmp_path, migrated_file, {"dead": fake}, breaker_seconds=1) as lab:
        fake.fault = "error_500"
        await ask(lab, "dead/tiny")
        await ask(lab, "dead/tiny")
        assert fake.asked["tiny"] == FAILURES
        await asyncio.sleep(1)
        got = await _storm(lab, "dead/tiny", 30)
        assert got == {"breaker_open": 29, "provider_error": 1}
        assert fake.asked["tiny"] == FAILURES + 1


async def test_a_model_comes_back_by_itself_also_when_who_tried_it_leaves(tmp_path: Path, migrated_file: Path) -> None:
    async with (
        FaultyProvider() as fake,
        _lab(tmp_path, migrated_file, {"dead": fake}, breaker_seconds=0.2, breaker_failures=1) as lab,
    ):
        fake.fault = "error_500"
        assert _result(await ask(lab, "dead/tiny")) == "provider_error"
        fake.fault = "silent"
        await asyncio.sleep(0.25)
        trying = asyncio.create_task(ask(lab, "dead/tiny"))
        async with asyncio.timeout(30):
            while fake.asked["tiny"] < 2:  # noqa: ASYNC110 - the fake counts, and tells nobody
                await asyncio.sleep(0.01)
        assert await _storm(lab, "dead/tiny", 10) == {"breaker_open": 10}
        trying.cancel()
        await asyncio.wait({trying})
        fake.fault = "ok"
        assert _result(await ask(lab, "dead/tiny")) == ANSWER
        assert await lab.breakers.states() == []


async def test_silence_until_the_deadline_is_a_failure_and_a_long_answer_is_none(
    tmp_path: Path, migrated_file: Path
) -> None:
    async with (
        FaultyProvider() as fake,
        _lab(tmp_path, migrated_file, {"slow": fake}, deadline_seconds=0.8, breaker_failures=1) as lab,
    ):
        got = await asyncio.gather(ask(lab, "slow/silent"), ask(lab, "slow/endless"))
        assert [_result(one) for one in got] == ["deadline_exceeded"] * 2
        assert [state.model for state in await lab.breakers.states()] == ["silent"]


async def test_the_second_model_answers_all_while_the_first_is_dead(tmp_path: Path, migrated_file: Path) -> None:
    aliases = {"either": {"models": ["dead/tiny", "steady/tiny"]}}
    async with (
        FaultyProvider() as dead,
        FaultyProvider() as steady,
        _lab(tmp_path, migrated_file, {"dead": dead, "steady": steady}, aliases=aliases) as lab,
    ):
        dead.fault = "reset"
        assert await _storm(lab, "either") == {ANSWER: CLIENTS}
        (use, _) = lab.queue.uses()
        assert dead.asked["tiny"] < FAILURES + use.concurrency
        assert steady.asked["tiny"] == CLIENTS


async def test_nobody_sees_that_one_of_two_providers_fails_now_and_then(
    tmp_path: Path, migrated_file: Path, *, thorough: bool
) -> None:
    chats = 2000 if thorough else 150
    aliases = {"either": {"models": ["shaky/tiny", "steady/tiny"]}}
    async with (
        FaultyProvider(seed=1) as shaky,
        FaultyProvider() as steady,
        _lab(tmp_path, migrated_file, {"shaky": shaky, "steady": steady}, aliases=aliases, breaker_seconds=0.2) as lab,
    ):
        shaky.failing = 0.3
        turns = asyncio.Semaphore(16)

        async def chat() -> str:
            async with turns:
                return _result(await ask(lab, "either"))

        got = Counter(await asyncio.gather(*(chat() for _ in range(chats))))
        assert shaky.failed > chats / 6  # it did fail
    assert got[ANSWER] >= 0.995 * chats, got
