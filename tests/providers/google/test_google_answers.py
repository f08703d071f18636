from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ai_lab.errors import (
    ContentFiltered,
    ContextOverflow,
    LabError,
    ModelNotFound,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from ai_lab.providers.google import Google
from ai_lab.providers.types import Chunk, FinishReason, Provider, Usage
from tests.fakes.google_server import (
    CHAT,
    GoogleServer,
    candidate,
    counts,
    ended,
    error_reply,
    event,
    stream_reply,
    text,
)
from tests.fakes.http_server import Reply, json_reply
from tests.providers.google.asking import ASKED, KEY, collect, failure


def test_it_fits_the_protocol() -> None:
    _: type[Provider] = Google  # the type checker looks at the rest
    assert Google.supports_tools


# -- whole answers ------------------------------------------------------------------------------------------------


async def test_text_thoughts_and_the_sum_of_both_are_told(server: GoogleServer, provider: Google) -> None:
    server.script(
        CHAT,
        stream_reply(
            candidate({"text": "Hm", "thought": True}, usageMetadata=counts(11, 1)),
            candidate({"text": "Grü"}, {"text": "ße"}),
            candidate({"text": ""}, reason="STOP", usageMetadata=counts(11, 2, thoughtsTokenCount=30)),
        ),
    )

    *pieces, final = await collect(provider)

    assert pieces == [Chunk(reasoning="Hm"), Chunk(text="Grüße")]
    assert final == Chunk(
        finish_reason="stop", usage=Usage(prompt_tokens=11, completion_tokens=32, reasoning_tokens=30)
    )


async def test_cached_tokens_are_told_and_an_answer_of_nothing_has_none(server: GoogleServer, provider: Google) -> None:
    usage = {"promptTokenCount": 90, "cachedContentTokenCount": 64, "toolUsePromptTokenCount": 5}
    server.script(CHAT, stream_reply(event(candidates=[{"finishReason": "STOP"}], usageMetadata=usage)))

    [final] = await collect(provider)

    assert final.usage == Usage(prompt_tokens=95, completion_tokens=0, cached_tokens=64)


async def test_key_travels_in_its_header_alone(server: GoogleServer, provider: Google) -> None:
    await collect(provider)

    [request] = server.requests
    assert request.headers["x-goog-api-key"] == KEY
    assert "authorization" not in request.headers
    assert KEY not in request.path


async def test_calls_come_whole_with_ids_and_what_the_model_wants_back(server: GoogleServer, provider: Google) -> None:
    first = {"functionCall": {"name": "look", "args": {"at": "Zürich"}}, "thoughtSignature": "c2ln"}
    second = {"functionCall": {"id": "theirs", "name": "listen"}}
    server.script(CHAT, stream_reply(candidate(first, second), ended()))

    *pieces, final = await collect(provider)

    [calls] = [chunk.tool_calls for chunk in pieces]
    assert calls
    assert [call["index"] for call in calls] == [0, 1]
    assert json.loads(calls[0]["function"]["arguments"]) == {"at": "Zürich"}
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert calls[0]["id"].startswith("call_")
    assert calls[1] == {
        "index": 1,
        "id": "theirs",
        "type": "function",
        "function": {"name": "listen", "arguments": "{}"},
    }
    assert final.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ],
)
async def test_reasons_to_end(server: GoogleServer, provider: Google, reason: str, expected: FinishReason) -> None:
    server.script(CHAT, stream_reply(text("par"), ended(reason)))

    assert (await collect(provider))[-1].finish_reason == expected


async def test_whole_answer_needs_no_closed_connection_and_the_next_one_uses_it_again(
    server: GoogleServer, provider: Google
) -> None:
    for _ in range(3):
        await collect(provider)
    assert server.connection_count == 1

    server.script(CHAT, stream_reply(text("all"), ended(), ending="hang"), stream_reply(ended(), ending="cut"))
    for _ in range(2):
        async with asyncio.timeout(30):
            assert (await collect(provider))[-1].finish_reason == "stop"


async def test_usage_after_the_reason_counts(server: GoogleServer, provider: Google) -> None:
    server.script(CHAT, stream_reply(candidate({"text": "a"}, reason="STOP"), event(usageMetadata=counts(3, 1))))

    assert (await collect(provider))[-1].usage == Usage(prompt_tokens=3, completion_tokens=1)


# -- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), StreamBroken),
        ((b"data: {nonsense\n\n",), StreamBroken),
        ((b'data: {"candidates": [7]}\n\n',), StreamBroken),
        ((candidate({"functionCall": {}}),), StreamBroken),
        ((ended("MALFORMED_FUNCTION_CALL"),), StreamBroken),
        ((ended("OTHER"),), StreamBroken),
        ((event(error={"code": 503, "status": "UNAVAILABLE", "message": "busy"}),), ProviderUnavailable),
        ((event(error={"status": "RESOURCE_EXHAUSTED", "message": "slow"}),), ProviderRateLimited),
        ((event(error={"status": "INTERNAL"}),), ProviderError),
    ],
)
async def test_broken_stream_keeps_its_beginning_and_raises(
    server: GoogleServer, provider: Google, parts: tuple[bytes, ...], expected: type[LabError]
) -> None:
    server.script(CHAT, stream_reply(text("par"), *parts, ending="end" if parts else "cut"))
    stream = provider.stream(ASKED)

    assert (await anext(stream)).text == "par"
    with pytest.raises(LabError) as caught:
        await anext(stream)

    assert type(caught.value) is expected


async def test_blocked_question_is_refused_by_the_filter(server: GoogleServer, provider: Google) -> None:
    server.script(CHAT, stream_reply(event(promptFeedback={"blockReason": "SAFETY"}, usageMetadata=counts(3, 0))))

    error = await failure(provider)

    assert type(error) is ContentFiltered
    assert "SAFETY" in error.detail


def _detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            error_reply(400, "INVALID_ARGUMENT", "API key not valid.", _detail("ErrorInfo", reason="API_KEY_INVALID")),
            ProviderAuthFailed,
        ),
        (error_reply(403, "PERMISSION_DENIED", "blocked"), ProviderAuthFailed),
        (
            error_reply(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
            ProviderAuthFailed,
        ),
        (error_reply(404, "NOT_FOUND", "models/gemini-tiny is not found for API version v1beta"), ModelNotFound),
        (
            error_reply(400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum (1048576)."),
            ContextOverflow,
        ),
        (error_reply(400, "INVALID_ARGUMENT", "Invalid value at 'contents'"), ProviderRefused),
        (error_reply(500, "INTERNAL", "An internal error has occurred."), ProviderError),
        (error_reply(503, "UNAVAILABLE", "The model is overloaded."), ProviderUnavailable),
        (error_reply(504, "DEADLINE_EXCEEDED"), ProviderTimeout),
        (
            error_reply(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
            ProviderRateLimited,
        ),
        (
            error_reply(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
            ProviderQuotaExceeded,
        ),
        (Reply([b"<html>"], headers={"content-type": "text/html"}), ProviderError),
        (json_reply([{"error": {"code": 503, "status": "UNAVAILABLE"}}], 503), ProviderUnavailable),
    ],
)
async def test_errors_are_told_apart(
    server: GoogleServer, provider: Google, reply: Reply, expected: type[LabError]
) -> None:
    server.script(CHAT, reply)

    error = await failure(provider)

    assert type(error) is expected
    assert KEY not in str(error)


async def test_limit_per_minute_is_waited_for_and_one_per_day_is_not(server: GoogleServer, provider: Google) -> None:
    said = "You exceeded your current quota, please check your plan and billing details."
    per_minute, per_day = (
        error_reply(
            429,
            "RESOURCE_EXHAUSTED",
            said,
            _detail(
                "QuotaFailure", violations=[{"quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"}]
            ),
            _detail("RetryInfo", retryDelay="36.5s"),
        )
        for period in ("Minute", "Day")
    )
    server.script(CHAT, per_minute, per_day)

    limited, used_up = await failure(provider), await failure(provider)

    assert (type(limited), limited.retry_after_seconds) == (ProviderRateLimited, 36.5)
    assert type(used_up) is ProviderQuotaExceeded


async def test_refused_key_is_never_repeated(server: GoogleServer, provider: Google) -> None:
    server.script(CHAT, error_reply(401, "UNAUTHENTICATED", f"The key {KEY} is wrong."))

    error = await failure(provider)

    assert type(error) is ProviderAuthFailed
    assert KEY not in error.detail


async def test_closing_early_disconnects(server: GoogleServer, provider: Google) -> None:
    server.script(CHAT, stream_reply(text("first"), ending="hang"))
    stream = provider.stream(ASKED)
    assert (await anext(stream)).text == "first"

    await stream.aclose()

    await asyncio.wait_for(server.requests[0].disconnected.wait(), timeout=30)
