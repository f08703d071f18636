"""Every fault of a service, seen by the user: its typed error, or the whole answer of the next model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.settings import Settings
from tests.fakes.faulty_provider import ANSWER, FAULTS, HARMLESS, LATE, PIECES, FaultyProvider
from tests.lab_server import serve_lab

DEADLINE_SECONDS = 3.0
#: What takes longer hangs; a busy machine does not take as long.
HANGING_SECONDS = 6 * DEADLINE_SECONDS
#: Before the answer begins, a service is asked so often.
ATTEMPTS = 2
UNREACHABLE = ("refuse", "dns", "tls")
#: Code of the error that the user gets, and its HTTP status where nothing was sent before.
ERRORS = {
    "silent": ("provider_timeout", 504),
    "hang": ("provider_timeout", 504),
    "hang_late": ("provider_timeout", 504),
    "reset": ("provider_unavailable", 503),
    "reset_late": ("provider_stream_broken", 502),
    "cut_late": ("provider_stream_broken", 502),
    "no_end": ("provider_stream_broken", 502),
    "bad_json": ("provider_stream_broken", 502),
    "bad_json_late": ("provider_stream_broken", 502),
    "error_in_200": ("provider_error", 502),
    "error_in_200_late": ("provider_error", 502),
    "rate_limited": ("provider_rate_limited", 429),
    "rate_limited_seconds": ("provider_rate_limited", 429),
    "rate_limited_date": ("provider_rate_limited", 429),
    "quota": ("provider_quota_exceeded", 402),
    "auth": ("provider_auth_failed", 502),
    "refused": ("provider_refused", 400),
    "error_500": ("provider_error", 502),
    "unavailable_503": ("provider_unavailable", 503),
    "overloaded_529": ("provider_unavailable", 503),
    "endless": ("deadline_exceeded", 504),
    "huge_line": ("provider_stream_broken", 502),
    **dict.fromkeys(UNREACHABLE, ("provider_unavailable", 503)),
}
#: It does not help to ask again, or another model.
ASKED_ONCE = LATE | HARMLESS | {"quota", "auth", "refused"}
NOT_PASSED_ON = LATE | {"refused"}
SLOW = ("slow", "silent", "hang", "hang_late", "rate_limited_date", "endless")
#: Streamed or not; alone or with a healthy model behind it.
WAYS = ((False, False), (True, False), (True, True))
#: 7 prompt and 4 completion tokens of the healthy model, in millionths of a dollar.
PRICES = {name: {"input": 1.0, "output": 10.0} for name in ("healthy/*", "faulty/*")}
COST_USD = 47e-6
#: The service may have made tokens before, and nobody has said how many.
MAY_BE_OWED = {"provider_timeout", "provider_stream_broken"}


@dataclass
class Outcome:
    """What a client got."""

    status: int
    text: str
    error: dict[str, Any] | None
    answer: dict[str, Any]
    seconds: float


@dataclass
class Seen:
    """All that happened: by fault, and whether a healthy model stood behind it."""

    streamed: dict[tuple[str, bool], Outcome] = field(default_factory=dict)
    plain: dict[tuple[str, bool], Outcome] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)


def test_every_fault_has_an_error() -> None:
    assert set(FAULTS) == set(ERRORS) - set(UNREACHABLE) | HARMLESS


@pytest.mark.parametrize("fault", sorted(ERRORS))
def test_alone_it_is_a_typed_error(seen: Seen, fault: str) -> None:
    code, status = ERRORS[fault]
    plain, streamed = seen.plain[fault, False], seen.streamed[fault, False]
    assert plain.error is not None
    assert (plain.error["code"], plain.status) == (code, status)
    assert streamed.error is not None
    assert streamed.error["code"] == code
    assert _is_what_came_before(fault, streamed.text)
    assert max(plain.seconds, streamed.seconds) < HANGING_SECONDS


@pytest.mark.parametrize("fault", sorted({*ERRORS} - NOT_PASSED_ON))
def test_with_a_second_model_it_is_that_ones_answer(seen: Seen, fault: str) -> None:
    outcome = seen.streamed[fault, True]
    assert outcome.error is None, outcome.error
    assert outcome.text == ANSWER
    assert outcome.seconds < HANGING_SECONDS
    answer = outcome.answer
    assert (answer["model"], answer["provider"], answer["response"]) == ("healthy/tiny", "healthy", ANSWER)
    assert any(fault in warning and "healthy/tiny" in warning for warning in answer["warnings"])
    assert answer["attempts"] == (1 if fault in ASKED_ONCE else ATTEMPTS) + 1
    is_known = ERRORS[fault][0] not in MAY_BE_OWED
    assert answer["cost"] == (pytest.approx(COST_USD) if is_known else None)


@pytest.mark.parametrize("fault", sorted(NOT_PASSED_ON))
def test_what_has_begun_or_is_refused_everywhere_is_not_passed_on(seen: Seen, fault: str) -> None:
    outcome = seen.streamed[fault, True]
    assert outcome.error is not None
    assert outcome.error["code"] == ERRORS[fault][0]
    assert _is_what_came_before(fault, outcome.text)


@pytest.mark.parametrize("fault", sorted(HARMLESS))
def test_what_only_looks_like_a_fault_is_an_answer(seen: Seen, fault: str) -> None:
    for outcome in (seen.plain[fault, False], seen.streamed[fault, False]):
        assert outcome.error is None
        assert outcome.text == ANSWER


def test_each_service_is_asked_as_often_as_it_helps(seen: Seen) -> None:
    expected = {fault: len(WAYS) * (1 if fault in ASKED_ONCE else ATTEMPTS) for fault in FAULTS}
    assert {fault: seen.asked[fault] for fault in FAULTS} == expected
    passed_on = {*ERRORS} - NOT_PASSED_ON
    assert seen.asked["healthy"] == len(passed_on)


def test_each_answer_is_paid_once(seen: Seen) -> None:
    groups = {group["key"]: group for group in seen.costs["groups"]}
    healthy = groups["healthy"]
    assert healthy["attempts"] == seen.asked["healthy"]
    assert healthy["cost_usd"] == pytest.approx(COST_USD * seen.asked["healthy"])


def _is_what_came_before(fault: str, text: str) -> bool:
    if fault == "endless":
        return bool(text) and not text.replace("more ", "")
    before = ANSWER if fault == "no_end" else "".join(PIECES[:2])
    return text == (before if fault in LATE else "")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return asyncio.run(_go_through_all(tmp_path_factory.mktemp("faults") / "data"))


async def _go_through_all(data_dir: Path) -> Seen:
    async with FaultyProvider(variants=len(WAYS)) as faulty, FaultyProvider() as healthy:
        faulty.retry_after_seconds = 0.05
        urls = {"faulty": faulty.base_url, "healthy": healthy.base_url, **faulty.unreachable()}
        settings = Settings.model_validate(
            {
                "data_dir": data_dir,
                "servers": {name: {"base_url": url} for name, url in urls.items()},
                "aliases": {
                    f"safe-{name}": {"models": [name, "healthy/tiny"]}
                    for fault in ERRORS
                    for name in (_model(fault, way) for way in WAYS)
                },
                "service_limits": {"faulty": {"concurrency": 1000}},
                "prices": PRICES,
                "request_timeout_seconds": 1.0,
                "deadline_seconds": DEADLINE_SECONDS,
                "retry_attempts": ATTEMPTS,
                "retry_wait_seconds": 0.01,
                "cache": False,
                "enable_metrics": False,
            }
        )
        seen = Seen()
        quick = [fault for fault in (*UNREACHABLE, *FAULTS) if fault not in SLOW]
        async with serve_lab(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=60) as http:

            async def go_through(faults: Sequence[str]) -> None:
                asking = [(fault, way) for fault in faults for way in WAYS]
                outcomes = await asyncio.gather(*(_ask(http, fault, way) for fault, way in asking))
                for (fault, (is_stream, is_safe)), outcome in zip(asking, outcomes, strict=True):
                    (seen.streamed if is_stream else seen.plain)[fault, is_safe] = outcome

            waiting = asyncio.create_task(go_through(SLOW))
            for at in range(0, len(quick), 3):  # so that none waits for the others
                await go_through(quick[at : at + 3])
            await waiting
            for model, times in faulty.asked.items():
                fault = model.partition(":")[0]
                seen.asked[fault] = seen.asked.get(fault, 0) + times
            seen.asked["healthy"] = healthy.asked["tiny"]
            seen.costs = (await http.get("/costs/summary", params={"group_by": "service"})).json()
        return seen


def _model(fault: str, way: tuple[bool, bool]) -> str:
    """Return the model to ask; each request has one of its own, so that no breaker knows of the others."""
    if fault in UNREACHABLE:
        return f"{fault}/tiny-{WAYS.index(way)}"
    number = WAYS.index(way) + 1
    return f"faulty/{fault}" if number == 1 else f"faulty/{fault}:{number}"


async def _ask(http: httpx.AsyncClient, fault: str, way: tuple[bool, bool]) -> Outcome:
    is_stream, is_safe = way
    model = _model(fault, way)
    model = f"safe-{model}" if is_safe and fault in ERRORS else model
    started = time.monotonic()
    if is_stream:
        response = await http.post("/chat", json={"message": "hi", "model": model, "stream": True})
        return _read_stream(response, time.monotonic() - started)
    messages = [{"role": "user", "content": "hi"}]
    response = await http.post("/v1/chat/completions", json={"messages": messages, "model": model})
    body = response.json()
    text = body["choices"][0]["message"]["content"] if response.is_success else ""
    return Outcome(response.status_code, text, body.get("error"), body, time.monotonic() - started)


def _read_stream(response: httpx.Response, seconds: float) -> Outcome:
    outcome = Outcome(response.status_code, "", None, {}, seconds)
    if not response.headers["content-type"].startswith("text/event-stream"):  # failed before the stream began
        outcome.error = response.json()
        return outcome
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        match fields.get("event"):
            case "message.delta":
                outcome.text += json.loads(fields["data"]).get("delta", "")
            case "message.done":
                outcome.answer = json.loads(fields["data"])
            case "error":
                outcome.error = json.loads(fields["data"])
    return outcome
