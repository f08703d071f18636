from __future__ import annotations

from datetime import timedelta

import pytest

from ai_lab import clock
from ai_lab.errors import (
    ContextOverflow,
    LabError,
    ModelNotFound,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    UnsupportedFeature,
)
from ai_lab.providers.anthropic import Anthropic
from ai_lab.providers.types import ModelInfo, Provider
from tests.fakes.anthropic_server import MESSAGES, MODELS, AnthropicServer, error_reply
from tests.fakes.http_server import Reply, json_reply
from tests.providers.anthropic.asking import collect, failure, key

INVALID = "invalid_request_error"


def test_it_fits_the_protocol() -> None:
    _: type[Provider] = Anthropic  # the type checker looks at the rest


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error_reply(400, INVALID, "Your credit balance is too low to access the API."), ProviderQuotaExceeded),
        (error_reply(400, INVALID, "You have reached your specified API usage limits."), ProviderQuotaExceeded),
        (error_reply(402, "billing_error", ""), ProviderQuotaExceeded),
        (error_reply(400, INVALID, "prompt is too long: 208310 tokens > 200000 maximum"), ContextOverflow),
        (
            error_reply(400, INVALID, "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"),
            ContextOverflow,
        ),
        (error_reply(400, INVALID, "messages: at least one message is required"), ProviderRefused),
        (error_reply(413, "request_too_large", "Request exceeds the maximum size"), ProviderRefused),
        (error_reply(404, "not_found_error", "model: claude-none"), ModelNotFound),
        (error_reply(500, "api_error", "Internal server error"), ProviderError),
    ],
)
async def test_refusals_are_typed(
    server: AnthropicServer, provider: Anthropic, reply: Reply, expected: type[LabError]
) -> None:
    server.script(MESSAGES, reply)

    assert type(await failure(provider)) is expected


async def test_spend_limit_of_the_month_is_a_quota_although_it_looks_like_a_rate_limit(
    server: AnthropicServer, provider: Anthropic
) -> None:
    said = {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}}
    server.script(MESSAGES, json_reply({"type": "error", "error": said}, 429))

    assert type(await failure(provider)) is ProviderQuotaExceeded


async def test_wait_is_known_from_the_limits_that_are_used_up_where_no_other_is_told(
    server: AnthropicServer, provider: Anthropic
) -> None:
    def after(seconds: float) -> str:
        return (clock.now() + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")

    limits = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": after(30),
        "anthropic-ratelimit-input-tokens-remaining": "5000",
        "anthropic-ratelimit-input-tokens-reset": after(300),
    }
    said = error_reply(429, "rate_limit_error")
    server.script(
        MESSAGES,
        Reply(said.parts, 429, {**said.headers, **limits}),
        Reply(said.parts, 429, {**said.headers, **limits, "retry-after": "4"}),
        Reply(said.parts, 429, {**said.headers, **limits, "anthropic-ratelimit-requests-reset": "soon"}),
    )

    errors = [await failure(provider) for _ in range(3)]

    assert {type(error) for error in errors} == {ProviderRateLimited}
    assert 25 < (errors[0].retry_after_seconds or 0) <= 30
    assert [error.retry_after_seconds for error in errors[1:]] == [4, None]


async def test_wrong_address_is_said_to_be_one(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MESSAGES, Reply([b"<html>no</html>"], 404), Reply([b"<html>"], headers={"content-type": "text/html"}))

    assert f"{server.origin} (such as https://api.anthropic.com)" in (await failure(provider)).detail
    assert "web page" in (await failure(provider)).detail


# -- the other calls ----------------------------------------------------------------------------------------------


async def test_models_of_all_pages_tell_context_and_capabilities(server: AnthropicServer, provider: Anthropic) -> None:
    capabilities = {"image_input": {"supported": True}, "thinking": {"supported": False}, "batch": {"supported": True}}
    first = [
        {"id": "claude-a", "max_input_tokens": 1_000_000, "max_tokens": 64_000, "capabilities": capabilities},
        {"id": "claude-old", "lifecycle": "retired"},
        {"nonsense": True},
    ]
    server.script(MODELS, json_reply({"data": first, "has_more": True, "last_id": "claude/old"}))
    server.script(f"{MODELS}&after_id=claude%2Fold", json_reply({"data": [{"id": "claude-b"}], "has_more": False}))

    assert await provider.models() == [
        ModelInfo("claude-a", context_tokens=1_000_000, capabilities=frozenset({"tools", "images"})),
        ModelInfo("claude-b", capabilities=frozenset({"tools"})),
    ]
    assert await provider.context_tokens("claude-a") == 1_000_000
    assert await provider.context_tokens("claude-b") == 200_000
    assert len(server.requests) == 2
    assert await provider.count_tokens("claude-a", []) is None


async def test_context_is_asked_once(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MODELS, error_reply(500, "api_error"))

    assert [await provider.context_tokens(name) for name in ("claude-x", "other", "claude-x")] == [
        200_000,
        None,
        200_000,
    ]
    assert len(server.requests) == 1


async def test_list_that_is_none_is_an_error(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MODELS, json_reply({"models": []}), json_reply([1]))

    for _ in range(2):
        with pytest.raises(ProviderError, match="shape of its API"):
            await provider.models()


async def test_it_makes_no_embeddings_and_says_who_does(server: AnthropicServer, provider: Anthropic) -> None:
    with pytest.raises(UnsupportedFeature, match="all-MiniLM-L6-v2"):
        await provider.embed("claude-tiny", ["a"])
    assert not server.requests


async def test_check_spends_nothing(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(
        "/v1/models?limit=1", json_reply({"data": []}), error_reply(401, "authentication_error"), error_reply(404, "x")
    )

    checks = [await provider.check() for _ in range(3)]

    assert [check.reachable for check in checks] == [True, False, True]
    assert checks[1].remedy == "Correct its API key."
    assert {request.method for request in server.requests} == {"GET"}


async def test_address_may_end_in_v1(server: AnthropicServer) -> None:
    made = Anthropic("anthropic", f"{server.origin}/v1/", api_key=key)

    await collect(made)
    await made.close()

    assert server.requests[0].path == MESSAGES
    assert made.address == server.origin
