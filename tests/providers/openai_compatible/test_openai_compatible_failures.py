from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from ai_lab import clock
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
    UnsupportedFeature,
)
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.types import Embeddings, Usage
from tests.fakes.http_server import Reply, json_reply
from tests.fakes.openai_server import CHAT, OpenAIServer
from tests.providers.openai_compatible.asking import KEY, failure, opened

# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key_is_never_repeated(server: OpenAIServer, provider: OpenAICompatible, status: int) -> None:
    said = f"Incorrect API key provided: {KEY}, that is {KEY[:12]}***{KEY[-8:]}."
    server.script(CHAT, json_reply({"error": {"message": said, "code": "invalid_api_key"}}, status))

    error = await failure(provider)

    assert type(error) is ProviderAuthFailed
    assert "Incorrect API key provided" in error.detail
    assert KEY[:12] not in error.detail
    assert KEY[-8:] not in error.detail
    assert KEY not in repr(error.__cause__)


async def test_key_that_no_header_can_hold_is_refused_unseen(server: OpenAIServer) -> None:
    async def key() -> str:
        return "sk-\u00e4\nsecret"

    async with opened(server.base_url, api_key=key) as provider:
        error = await failure(provider)

    assert type(error) is ProviderAuthFailed
    assert "secret" not in error.detail
    assert not server.requests


async def test_rate_limit_tells_how_long_to_wait_in_seconds_and_as_a_date(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    date = format_datetime(clock.now() + timedelta(seconds=90), usegmt=True)
    said = {"error": {"message": "slow down"}}
    server.script(
        CHAT,
        json_reply(said, 429, retry_after="7"),
        json_reply(said, 429, retry_after=date),
        json_reply(said, 429, retry_after="soon"),
        json_reply({"error": {"message": "Limit reached. Please try again in 1m2.5s."}}, 429),
        json_reply({"statusCode": 429, "message": "Rate limit is exceeded. Try again in 12 seconds."}, 429),
        json_reply({"error": {"message": "Try again in 250ms"}}, 429),
    )

    waits = [await failure(provider) for _ in range(6)]

    assert all(type(error) is ProviderRateLimited for error in waits)
    assert 80 < (waits.pop(1).retry_after_seconds or 0) <= 90
    assert [error.retry_after_seconds for error in waits] == [7, None, 62.5, 12, 0.25]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, {"error": {"message": "Insufficient credits.", "code": 402}}),
        (429, {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}),
        (429, {"error": "You exceeded your current quota, please check your plan and billing details."}),
        (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}),
        (400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}}),
        (403, {"error": {"message": "Key limit exceeded (monthly limit).", "code": 403}}),
    ],
)
async def test_an_account_that_is_used_up_is_no_rate_limit(
    server: OpenAIServer, provider: OpenAICompatible, status: int, body: dict[str, Any]
) -> None:
    server.script(CHAT, json_reply(body, status))

    assert type(await failure(provider)) is ProviderQuotaExceeded


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "content_policy_violation", "message": "Your request was rejected."}),
        (400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        (
            400,
            {"code": None, "message": "Invalid prompt: your prompt was flagged as potentially violating our policy."},
        ),
        (403, {"code": 403, "message": "No.", "metadata": {"reasons": ["violence"], "flagged_input": "…"}}),
    ],
)
async def test_a_content_filter_is_known_in_its_many_forms(
    server: OpenAIServer, provider: OpenAICompatible, status: int, error: dict[str, Any]
) -> None:
    server.script(CHAT, json_reply({"error": error}, status))

    assert type(await failure(provider)) is ContentFiltered


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
        (400, {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}}),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}),
        (422, {"detail": "prompt is too long"}),
        (413, {"error": "The input exceeds the context window."}),
    ],
)
async def test_context_overflow_is_known_in_its_many_forms(
    server: OpenAIServer, provider: OpenAICompatible, status: int, body: dict[str, Any]
) -> None:
    server.script(CHAT, json_reply(body, status))

    error = await failure(provider)

    assert type(error) is ContextOverflow
    if "n_ctx" in str(body):
        assert "5000" in error.detail
        assert "4096" in error.detail


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (400, "temperature must be a number", ProviderRefused),
        (422, "", ProviderRefused),
        (400, "This model does not support tools", UnsupportedFeature),
        (404, "The model `tiny` does not exist", ModelNotFound),
        (404, "Not Found", ProviderError),
        (400, "tiny is not a valid model ID", ModelNotFound),
        (404, '{"error": {"code": 404, "message": "No endpoints found for org/tiny."}}', ModelNotFound),
        (404, '{"error": {"code": 404, "message": "No endpoints found that support tool use."}}', UnsupportedFeature),
        (400, '{"error": {"code": "model_not_supported", "message": "No provider has it."}}', ModelNotFound),
        (521, "", ProviderUnavailable),
        (408, "", ProviderTimeout),
        (500, "boom", ProviderError),
        (502, "<html>bad gateway</html>", ProviderUnavailable),
        (503, "Loading model", ProviderUnavailable),
        (504, "", ProviderTimeout),
        (529, "overloaded", ProviderUnavailable),
    ],
)
async def test_status_decides_the_error(
    server: OpenAIServer, provider: OpenAICompatible, status: int, said: str, expected: type[LabError]
) -> None:
    server.script(CHAT, Reply([said.encode()], status))

    assert type(await failure(provider)) is expected


async def test_long_message_of_the_server_is_bounded(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, json_reply({"error": {"message": "no " * 50_000}}, 400))

    assert len((await failure(provider)).detail) < 600


async def test_redirect_is_not_followed_and_said(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, Reply([], 307, {"location": f"{server.origin}/elsewhere?token=1"}))

    error = await failure(provider)

    assert type(error) is ProviderError
    assert f"redirects to {server.origin}/elsewhere." in error.detail
    assert len(server.requests) == 1


async def test_web_page_is_no_answer(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, Reply([b"<html>"], headers={"content-type": "text/html; charset=utf-8"}, ending="hang"))

    assert "web page" in (await failure(provider)).detail
    await asyncio.wait_for(server.requests[0].disconnected.wait(), timeout=30)


async def test_error_under_status_200_is_an_error(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, json_reply({"error": {"message": "gone", "code": "model_not_found"}}))

    assert type(await failure(provider)) is ModelNotFound


async def test_refused_connection_says_where_and_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with opened(f"http://user:hidden@127.0.0.1:{port}/v1") as provider:
            error = await failure(provider)
            check = await provider.check()

    assert type(error) is ProviderUnavailable
    assert f"http://127.0.0.1:{port}/v1: nothing listens there" in error.detail
    assert "hidden" not in error.detail
    assert not check.reachable
    assert check.remedy


async def test_unknown_host_is_unavailable() -> None:
    async with opened("http://no-such-host.invalid/v1") as provider:
        assert "its name cannot be resolved" in (await failure(provider)).detail


async def test_failed_tls_is_unavailable() -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with server, opened(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as provider:
        error = await failure(provider)

    assert type(error) is ProviderUnavailable
    assert "no secure connection" in error.detail


# -- the other calls ----------------------------------------------------------------------------------------------


async def test_models_tell_their_context(server: OpenAIServer, provider: OpenAICompatible) -> None:
    listed = [
        {"id": "llama.cpp", "meta": {"n_ctx_train": 8192, "n_ctx": 2048, "size": 90}},
        {"id": "vllm", "max_model_len": 4096},
        {"id": "silent"},
        {"nonsense": True},
    ]
    server.script("/v1/models", json_reply({"data": listed}))

    found = {model.name: model for model in await provider.models()}

    assert {name: model.context_tokens for name, model in found.items()} == {
        "llama.cpp": 2048,
        "vllm": 4096,
        "silent": None,
    }
    assert found["llama.cpp"].size_bytes == 90
    assert await provider.context_tokens("vllm") == 4096
    assert await provider.context_tokens("silent") is None
    assert len(server.requests) == 1


async def test_context_is_asked_once_and_a_configured_one_not_at_all(server: OpenAIServer) -> None:
    server.script("/v1/models", json_reply({}, 404))
    async with opened(server.base_url) as provider:
        assert [await provider.context_tokens("tiny") for _ in range(3)] == [None, None, None]
    assert len(server.requests) == 1
    async with opened(server.base_url, context_tokens=512) as provider:
        assert await provider.context_tokens("tiny") == 512
    assert len(server.requests) == 1


async def test_embeddings_come_in_the_order_of_their_texts(server: OpenAIServer, provider: OpenAICompatible) -> None:
    assert await provider.embed("tiny", ["a", "b"]) == Embeddings([[0.0, 0.5], [1.0, 0.5]], Usage(prompt_tokens=4))

    server.script("/v1/embeddings", json_reply({"error": {"message": "no such route"}}, 404), json_reply({"data": []}))
    with pytest.raises(UnsupportedFeature):
        await provider.embed("tiny", ["a"])
    with pytest.raises(ProviderError, match="0 embeddings for 1 texts"):
        await provider.embed("tiny", ["a"])


async def test_check_spends_nothing_and_waits_a_second_at_most(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    server.script(
        "/v1/models", json_reply({"data": []}), json_reply({}, 404), json_reply({}, 401), Reply([], ending="hang")
    )

    checks = [await provider.check() for _ in range(4)]

    assert [check.reachable for check in checks] == [True, True, False, False]
    assert "within 1 s" in checks[-1].detail
    assert {request.path for request in server.requests} == {"/v1/models"}
