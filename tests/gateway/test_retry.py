"""What is asked again, what is not, and never after the first piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_lab.errors import (
    BreakerOpen,
    LabError,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    ProviderUnavailable,
    StreamBroken,
)
from ai_lab.lab import Lab
from tests.fakes.faulty_provider import ANSWER, LATE, FaultyProvider
from tests.fakes.openai_server import CHAT
from tests.gateway.asking import ask, open_lab


@pytest.fixture
async def fake() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as fake:
        yield fake


@pytest.fixture
async def lab(fake: FaultyProvider, tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    servers = {"faulty": {"base_url": fake.base_url}} | fake.unreachable()
    async with open_lab(tmp_path, migrated_file, servers=servers, request_timeout_seconds=2) as lab:
        yield lab


async def asked(fake: FaultyProvider) -> None:
    while (await fake.next_request()).path != CHAT:
        pass


async def test_what_passes_is_asked_again_and_what_does_not_is_not(lab: Lab, fake: FaultyProvider) -> None:
    fake.retry_after_seconds = 60
    expected: dict[str, tuple[int, type[LabError]]] = {
        "error_500": (3, ProviderError),
        "unavailable_503": (3, ProviderUnavailable),
        "overloaded_529": (3, ProviderUnavailable),
        "reset": (3, ProviderUnavailable),
        "error_in_200": (3, ProviderError),
        "rate_limited": (3, ProviderRateLimited),
        "rate_limited_seconds": (1, ProviderRateLimited),  # nobody waits a minute
        "quota": (1, ProviderQuotaExceeded),
        "auth": (1, ProviderAuthFailed),
        "refused": (1, ProviderRefused),
    }
    for fault, (times, error) in expected.items():
        answered = await ask(lab, f"faulty/{fault}")
        assert fake.asked[fault] == times, fault
        assert isinstance(answered.error, error), (fault, answered.error)
        assert answered.outcomes == [(f"faulty/{fault}", "failed")] * times
        assert answered.text == ""
    shown, _ = await lab.telemetry.exposition.render("text/plain")
    assert b'ai_lab_llm_retries_total{provider="faulty",error_type="provider_rate_limited"} 2' in shown


async def test_a_service_that_recovers_gives_one_whole_answer(lab: Lab, fake: FaultyProvider) -> None:
    for fault in ("error_500", "reset", "error_in_200", "rate_limited", "bad_json"):
        fake.fault = fault
        asking = asyncio.create_task(ask(lab, "faulty/tiny"))
        await asked(fake)
        fake.fault = "ok"
        answered = await asking
        await asked(fake)
        assert answered.text == ANSWER
        assert answered.error is None
        assert answered.outcomes == [("faulty/tiny", "failed"), ("faulty/tiny", "ok")]
        failed, whole = answered.attempts
        assert failed.error is not None
        assert (failed.number, failed.first_token_ms, whole.number) == (1, None, 2)
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (7, 4)
        assert failed.ended_ms is not None
        assert whole.first_token_ms is not None
        assert whole.ended_ms is not None
        assert failed.started_ms < failed.ended_ms < whole.started_ms < whole.first_token_ms <= whole.ended_ms


async def test_nothing_is_asked_again_once_text_has_come(lab: Lab, fake: FaultyProvider) -> None:
    for fault in sorted(LATE - {"endless", "hang_late"}):
        answered = await ask(lab, f"faulty/{fault}")
        assert answered.error is not None
        assert fake.asked[fault] == 1
        assert ANSWER.startswith(answered.text)
        assert answered.text.count("Grüße") == 1


@pytest.mark.parametrize(
    "fault", ["rate_limited_seconds", pytest.param("rate_limited_date", marks=pytest.mark.thorough)]
)
async def test_a_service_that_says_when_is_not_asked_before(lab: Lab, fake: FaultyProvider, fault: str) -> None:
    fake.fault, fake.retry_after_seconds = fault, 1
    asking = asyncio.create_task(ask(lab, "faulty/tiny"))
    await asked(fake)
    fake.fault = "ok"
    answered = await asking
    assert answered.text == ANSWER
    first, second = answered.attempts
    assert first.ended_ms is not None
    assert second.started_ms - first.ended_ms >= 990  # a date has whole seconds, and the clocks may differ a little


async def test_nobody_waits_beyond_the_end_of_the_call(
    fake: FaultyProvider, tmp_path: Path, migrated_file: Path
) -> None:
    servers = {"faulty": {"base_url": fake.base_url}}
    async with open_lab(
        tmp_path, migrated_file, servers=servers, retry_wait_seconds=20, deadline_seconds=5
    ) as impatient:
        answered = await asyncio.wait_for(ask(impatient, "faulty/error_500"), 4)
    assert isinstance(answered.error, ProviderError)
    assert len(answered.attempts) == 1


async def test_where_a_breaker_opens_meanwhile_the_models_own_error_is_told(lab: Lab, fake: FaultyProvider) -> None:
    for _ in range(2):
        answered = await ask(lab, "faulty/error_500")
    assert type(answered.error) is ProviderError
    assert [outcome for _, outcome in answered.outcomes] == ["failed", "failed", "refused"]  # it opens after five
    assert fake.asked["error_500"] == 5
    assert isinstance((await ask(lab, "faulty/error_500")).error, BreakerOpen)


async def test_an_answer_without_its_end_mark_is_broken(lab: Lab) -> None:
    answered = await ask(lab, "faulty/no_end")
    assert isinstance(answered.error, StreamBroken)
    assert answered.text == ANSWER
    assert answered.attempts[0].outcome == "failed"


async def test_who_leaves_stops_the_model(lab: Lab, fake: FaultyProvider) -> None:
    asking = asyncio.create_task(ask(lab, "faulty/endless"))
    await asked(fake)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(fake.received(CHAT)[-1].disconnected.wait(), 30)
