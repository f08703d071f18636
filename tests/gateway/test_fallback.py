"""The models of a route in turn: who answers, what the user is told, and what no other model is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_lab.chat import Answer, NewTurn
from ai_lab.errors import (
    BreakerOpen,
    ContextOverflow,
    LabError,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRefused,
    ProviderUnavailable,
    UnsupportedFeature,
)
from ai_lab.lab import Lab
from ai_lab.providers import ChatRequest, Message
from tests.fakes.faulty_provider import ANSWER, LATE, FaultyProvider
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, OpenAIServer
from tests.gateway.asking import ask, open_lab

_PASSED_ON = [
    "faulty/error_500",
    "faulty/unavailable_503",
    "faulty/reset",
    "faulty/error_in_200",
    "faulty/auth",
    "faulty/quota",
    "faulty/rate_limited_seconds",
    "refuse/any",
    "dns/any",
    "tls/any",
]
_TOO_LONG = json_reply({"error": {"code": "context_length_exceeded", "message": "too long"}}, status=400)


@pytest.fixture
async def fake() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as fake:
        fake.retry_after_seconds = 60
        yield fake


@pytest.fixture
async def small() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as small:
        yield small


@pytest.fixture
async def lab(fake: FaultyProvider, small: OpenAIServer, tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    servers = {
        "faulty": {"base_url": fake.base_url},
        "small": {"base_url": small.base_url, "context_tokens": 400},
    } | fake.unreachable()
    aliases = {name: [name, "faulty/ok"] for name in [*_PASSED_ON, "faulty/refused", "echo/echo", "small/tiny"]}
    aliases |= {fault: [f"faulty/{fault}", "faulty/ok"] for fault in LATE}
    aliases |= {
        "none": ["faulty/auth", "faulty/error_500", "dns/any"],
        "tools": ["echo/echo", "faulty/ok"],
        "small": ["small/tiny", "faulty/ok"],
        "flaky": ["faulty/tiny", "echo/echo"],
    }
    named = {f"to {name}" if "/" in name else name: models for name, models in aliases.items() if name != "small"}
    named["to small"] = aliases["small"]
    async with open_lab(
        tmp_path, migrated_file, servers=servers, aliases={name: {"models": m} for name, m in named.items()}
    ) as lab:
        yield lab


async def test_another_model_answers_and_the_user_is_told(lab: Lab) -> None:
    for first in _PASSED_ON:
        answered = await ask(lab, f"to {first}")
        assert answered.text == ANSWER, first
        assert answered.error is None
        assert answered.call.answered_by is not None
        assert answered.call.answered_by.full_name == "faulty/ok"
        assert answered.outcomes[-1] == ("faulty/ok", "ok")
        assert {outcome for _, outcome in answered.outcomes[:-1]} == {"failed"}
        (warning,) = answered.call.warnings
        assert warning.startswith(f"{first} (the ")
        assert warning.endswith(") did not answer: faulty/ok did.")


async def test_what_every_model_would_refuse_is_asked_once(lab: Lab, fake: FaultyProvider) -> None:
    answered = await ask(lab, "to faulty/refused")
    assert isinstance(answered.error, ProviderRefused)
    assert (fake.asked["refused"], fake.asked["ok"]) == (1, 0)


async def test_no_other_model_goes_on_with_what_one_has_begun(lab: Lab, fake: FaultyProvider) -> None:
    for fault in sorted(LATE - {"endless", "hang_late"}):
        answered = await ask(lab, fault)
        assert isinstance(answered.error, ProviderError)
        assert answered.text
        assert ANSWER.startswith(answered.text)
    assert fake.asked["ok"] == 0


async def test_where_none_answers_the_first_error_tells_of_the_others(lab: Lab) -> None:
    answered = await ask(lab, "none")
    assert type(answered.error) is ProviderAuthFailed
    told = answered.error.detail
    assert told.startswith("faulty/auth: ")
    assert "The others did not answer either. faulty/error_500: " in told
    assert "dns/any: " in told
    assert told == str(answered.error)
    assert isinstance(answered.error.__cause__, ProviderAuthFailed)
    assert answered.attempts[0].error is answered.error.__cause__
    assert "The others" not in answered.attempts[0].error.detail  # its text is its own still


async def test_an_open_breaker_costs_no_further_request(lab: Lab, fake: FaultyProvider) -> None:
    for _ in range(3):
        answered = await ask(lab, "to faulty/error_500")
        assert answered.text == ANSWER
    assert fake.asked["error_500"] == 5
    assert answered.outcomes == [("faulty/error_500", "refused"), ("faulty/ok", "ok")]
    assert isinstance(answered.attempts[0].error, BreakerOpen)
    assert answered.call.warnings == [
        "faulty/error_500 (the model service is left alone after failures) did not answer: faulty/ok did."
    ]


async def test_a_refusal_for_want_of_quota_passes_the_request_on_like_the_error_itself(
    lab: Lab, fake: FaultyProvider
) -> None:
    first, second = [await ask(lab, "to faulty/quota") for _ in range(2)]
    assert (fake.asked["quota"], second.text, second.call.warnings) == (1, ANSWER, first.call.warnings)
    assert second.outcomes == [("faulty/quota", "refused"), ("faulty/ok", "ok")]
    assert isinstance(second.attempts[0].error, ProviderQuotaExceeded)


async def test_a_model_that_cannot_do_it_is_passed_over(lab: Lab) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    request = ChatRequest("", [Message("user", "hello")], tools=[tool])
    completion = lab.completions.start(await lab.gateway.route("tools"), request)
    assert (await completion.result()).text == ANSWER
    assert completion.model.full_name == "faulty/ok"
    assert [attempt.outcome for attempt in completion.call.attempts] == ["refused", "ok"]
    assert isinstance(completion.call.attempts[0].error, UnsupportedFeature)
    alone = lab.completions.start(await lab.gateway.route("echo/echo"), request)
    with pytest.raises(UnsupportedFeature):
        await alone.result()


async def test_a_service_that_fails_by_chance_is_not_noticed(lab: Lab, fake: FaultyProvider, thorough: bool) -> None:
    chats = 2000 if thorough else 100
    fake.failing = 0.3

    async def one(number: int) -> bool:
        answered = await ask(lab, "flaky", f"chat {number}")
        assert answered.text in {ANSWER, f"chat {number}"}
        return answered.error is None

    going_well = [all(await asyncio.gather(*(one(start + n) for n in range(20)))) for start in range(0, chats, 20)]
    assert all(going_well)
    assert fake.failed >= 5  # then the breaker may have opened


class TestConversations:
    async def test_the_message_is_kept_with_the_model_that_answered(self, lab: Lab) -> None:
        answer = await lab.chat.answer(NewTurn(message="x", session_id="s", model="to faulty/error_500"))
        assert (answer.response, answer.model, answer.provider) == (ANSWER, "faulty/ok", "faulty")
        assert answer.attempts == 4
        assert answer.warnings == [
            "faulty/error_500 (the model service failed) did not answer: faulty/ok did.",
        ]
        kept = (await lab.conversations.messages("s")).data[-1]
        assert (kept.provider, kept.model, kept.content) == ("faulty", "ok", ANSWER)

    async def test_a_repeated_key_gives_the_same_answer(self, lab: Lab) -> None:
        new = NewTurn(message="x", session_id="s", model="to faulty/auth")
        first = await lab.chat.answer(new, "key")
        again = await lab.chat.answer(new, "key")
        kept = {"context"}  # not told again
        assert isinstance(again, Answer)
        assert again.model_dump(exclude=kept) == first.model_dump(exclude=kept)
        assert again.attempts == 2

    async def test_a_model_is_shown_less_until_it_fits_and_then_another_is_asked(
        self, lab: Lab, small: OpenAIServer, fake: FaultyProvider
    ) -> None:
        for number in range(4):
            await lab.chat.answer(NewTurn(message=f"{number}" + "w" * 80, session_id="s", model="small/tiny"))
        before = len(small.received(CHAT))
        small.script(CHAT, _TOO_LONG)
        answer = await lab.chat.answer(NewTurn(message="last", session_id="s", model="to small"))
        sizes = [len(request.json()["messages"]) for request in small.received(CHAT)[before:]]
        assert len(sizes) > 1
        assert sizes == sorted(sizes, reverse=True)
        assert answer.model == "faulty/ok"
        assert answer.context is not None
        assert answer.context.trimmed_messages == 0  # that model was shown everything
        assert len(fake.requests[-1].json()["messages"]) == 9

    async def test_alone_it_says_itself_that_it_is_too_long(self, lab: Lab, small: OpenAIServer) -> None:
        small.script(CHAT, _TOO_LONG)
        with pytest.raises(ContextOverflow, match="too long"):
            await lab.chat.answer(NewTurn(message="last", session_id="s", model="small/tiny"))
        assert len(small.received(CHAT)) == 1  # there was nothing to leave out


async def test_an_error_of_the_first_piece_is_no_error_of_the_next_call(lab: Lab) -> None:
    """Errors are shared by nobody: what one call is told is not in the next one's text."""
    first, second = [(await ask(lab, "none")).error for _ in range(2)]
    assert isinstance(first, LabError)
    assert isinstance(second, LabError)
    assert first.detail == second.detail
    unreachable = (await ask(lab, "dns/any")).error
    assert isinstance(unreachable, ProviderUnavailable)
    assert "The others" not in unreachable.detail
