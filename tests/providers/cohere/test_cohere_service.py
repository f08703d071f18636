from __future__ import annotations

import pytest

from ai_lab.errors import (
    ContextOverflow,
    LabError,
    ModelNotFound,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
)
from ai_lab.providers.cohere import Cohere
from ai_lab.providers.types import Embeddings, ModelInfo, Provider, Usage
from tests.fakes.cohere_server import CHAT, EMBED, MODELS, CohereServer, error_reply
from tests.fakes.http_server import Reply, json_reply
from tests.providers.cohere.asking import collect, failure, key


def test_it_fits_the_protocol() -> None:
    _: type[Provider] = Cohere  # the type checker looks at the rest


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error_reply(401, "invalid api token"), ProviderAuthFailed),
        (error_reply(402, "Please add or update your payment method"), ProviderQuotaExceeded),
        (
            error_reply(429, "You are using a Trial key, which is limited to 1000 API calls / month."),
            ProviderQuotaExceeded,
        ),
        (
            error_reply(429, "You are using a Trial key, which is limited to 20 API calls / minute."),
            ProviderRateLimited,
        ),
        (error_reply(429, "trial token rate limit exceeded"), ProviderRateLimited),
        (error_reply(400, "too many tokens: size limit exceeded by 11326 tokens."), ContextOverflow),
        (error_reply(400, "invalid request: message must be at least 1 token long"), ProviderRefused),
        (error_reply(404, "model 'command-none' not found, make sure the correct model ID was used"), ModelNotFound),
        (error_reply(500, "internal server error"), ProviderError),
    ],
)
async def test_refusals_are_typed(
    server: CohereServer, provider: Cohere, reply: Reply, expected: type[LabError]
) -> None:
    server.script(CHAT, reply)

    assert type(await failure(provider)) is expected


async def test_models_of_all_pages_tell_context_and_capabilities(server: CohereServer, provider: Cohere) -> None:
    first = [
        {
            "name": "command-a",
            "endpoints": ["chat", "generate"],
            "context_length": 256000.0,
            "features": ["tools", "json_mode", "vision", "reasoning", "safety_modes"],
        },
        {"name": "rerank-a", "endpoints": ["rerank"]},
        {"name": "command-old", "endpoints": ["chat"], "is_deprecated": True},
        {"nonsense": True},
    ]
    second = [{"name": "embed-a", "endpoints": ["embed"], "context_length": 512, "features": None}]
    server.script(MODELS, json_reply({"models": first, "next_page_token": "a/b"}))
    server.script(f"{MODELS}&page_token=a%2Fb", json_reply({"models": second}))

    assert await provider.models() == [
        ModelInfo("command-a", context_tokens=256_000, capabilities=frozenset({"tools", "json", "images", "thinking"})),
        ModelInfo("embed-a", context_tokens=512, capabilities=frozenset({"embeddings"})),
    ]
    assert await provider.context_tokens("command-a") == 256_000
    assert len(server.requests) == 2
    assert await provider.count_tokens("command-a", []) is None


async def test_context_is_asked_once(server: CohereServer, provider: Cohere) -> None:
    server.script(MODELS, json_reply([]))

    assert [await provider.context_tokens("command-a") for _ in range(2)] == [None, None]
    assert len(server.requests) == 1


async def test_embeddings_come_in_parts_that_the_api_takes(server: CohereServer, provider: Cohere) -> None:
    texts = ["x" * length for length in range(100)]

    made = await provider.embed("embed-a", texts)

    assert made == Embeddings([[float(length), 0.5] for length in range(100)], Usage(prompt_tokens=200))
    bodies = [request.json() for request in server.received(EMBED)]
    assert [len(body["texts"]) for body in bodies] == [96, 4]
    assert {**bodies[1], "texts": []} == {
        "model": "embed-a",
        "texts": [],
        "input_type": "search_document",
        "embedding_types": ["float"],
    }


async def test_embeddings_that_do_not_fit_are_an_error(server: CohereServer, provider: Cohere) -> None:
    server.script(EMBED, json_reply({"embeddings": {"float": [[1.0]]}}), json_reply({"embeddings": [[1.0]]}))

    assert await provider.embed("embed-a", ["a"]) == Embeddings([[1.0]], None)
    for _ in range(2):
        with pytest.raises(ProviderError, match="embeddings"):
            await provider.embed("embed-a", ["a", "b"])


async def test_check_spends_nothing(server: CohereServer, provider: Cohere) -> None:
    server.script("/v1/models?page_size=1", json_reply({"models": []}), error_reply(401, "no"), error_reply(500, "x"))

    checks = [await provider.check() for _ in range(3)]

    assert [check.reachable for check in checks] == [True, False, True]
    assert {request.method for request in server.requests} == {"GET"}


async def test_address_may_end_in_v2(server: CohereServer) -> None:
    made = Cohere("cohere", f"{server.origin}/v2", api_key=key)

    await collect(made)
    await made.close()

    assert server.requests[0].path == CHAT
    assert made.address == server.origin
