from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ai_lab.errors import ContentFiltered, LabError, ModelNotFound, ProviderAuthFailed, ProviderRateLimited
from ai_lab.providers.azure import Azure
from ai_lab.providers.types import ChatRequest, Chunk, Embeddings, Message, ModelInfo, Provider, Usage
from tests.fakes.azure_server import CHAT, DEPLOYMENTS, MODELS, AzureServer
from tests.fakes.http_server import Reply, json_reply
from tests.fakes.openai_server import DONE, delta, event, stream_reply, usage
from tests.security.canary import new_secret

KEY = new_secret("")
ASKED = ChatRequest("tiny", [Message("user", "hi")], options={"max_tokens": 9})
SAFE = {"hate": {"filtered": False, "severity": "safe"}}


async def _key() -> str:
    return KEY


@pytest.fixture
async def server() -> AsyncIterator[AzureServer]:
    async with AzureServer() as running:
        yield running


@pytest.fixture
async def provider(server: AzureServer) -> AsyncIterator[Azure]:
    made = Azure("azure", server.origin, api_key=_key, timeout_seconds=60)
    yield made
    await made.close()


async def collect(provider: Azure) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(ASKED)]


async def failure(provider: Azure) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider)
    return caught.value


def test_it_fits_the_protocol() -> None:
    _: type[Provider] = Azure  # the type checker looks at the rest
    assert Azure.supports_tools


@pytest.mark.parametrize("ending", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
async def test_every_form_of_the_address_is_understood(server: AzureServer, ending: str) -> None:
    made = Azure("azure", server.origin + ending, api_key=_key)
    assert [model.name for model in await made.models()] == ["tiny", "vectors"]
    assert "".join(chunk.text for chunk in await collect(made)) == "Hello, world"
    await made.close()

    assert [request.path for request in server.requests] == [DEPLOYMENTS, CHAT]
    for request in server.requests:
        assert request.headers["api-key"] == KEY
        assert "authorization" not in request.headers
    assert server.requests[1].json()["max_completion_tokens"] == 9
    assert "max_tokens" not in server.requests[1].json()


async def test_events_about_the_filter_are_no_part_of_the_answer(server: AzureServer, provider: Azure) -> None:
    server.script(
        CHAT,
        stream_reply(
            event({"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]}),
            event({"choices": [{"index": 0, "delta": {"content": "ok"}, "content_filter_results": SAFE}]}),
            event({"choices": [{"index": 0, "content_filter_offsets": {}, "content_filter_results": SAFE}]}),
            delta("content_filter"),
            usage(3, 1),
            DONE,
        ),
    )

    assert await collect(provider) == [
        Chunk(text="ok"),
        Chunk(finish_reason="content_filter", usage=Usage(prompt_tokens=3, completion_tokens=1)),
    ]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            json_reply(
                {
                    "error": {
                        "message": "The response was filtered due to the prompt.",
                        "code": "content_filter",
                        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
                        "status": 400,
                    }
                },
                400,
            ),
            ContentFiltered,
        ),
        (json_reply({"error": {"code": "DeploymentNotFound", "message": "It does not exist."}}, 404), ModelNotFound),
        (json_reply({"error": {"code": "401", "message": f"Key {KEY} is invalid."}}, 401), ProviderAuthFailed),
        (
            json_reply({"error": {"code": "429", "message": "Please retry after 12 seconds."}}, 429),
            ProviderRateLimited,
        ),
    ],
)
async def test_errors_are_told_apart(
    server: AzureServer, provider: Azure, reply: Reply, expected: type[LabError]
) -> None:
    server.script(CHAT, reply)

    error = await failure(provider)

    assert type(error) is expected
    assert KEY not in error.detail
    assert error.retry_after_seconds == (12 if expected is ProviderRateLimited else None)


async def test_deployments_are_the_models_and_what_could_be_deployed_only_without_them(
    server: AzureServer, provider: Azure
) -> None:
    able = {"capabilities": {"chat_completion": True, "embeddings": False}}
    unable = {"capabilities": {"chat_completion": False, "embeddings": False}}
    server.script(MODELS, json_reply({"data": [{"id": "gpt-4o", **able}, {"id": "whisper", **unable}]}))

    assert await provider.models() == [
        ModelInfo("tiny", capabilities=frozenset({"json"})),
        ModelInfo("vectors", capabilities=frozenset({"embeddings"})),
    ]
    assert await provider.context_tokens("tiny") is None
    assert len(server.requests) == 1

    server.script(DEPLOYMENTS, json_reply({"error": {"code": "404", "message": "Resource not found"}}, 404))
    assert [model.name for model in await provider.models()] == ["gpt-4o"]

    server.script(DEPLOYMENTS, json_reply({}, 401))
    with pytest.raises(ProviderAuthFailed):
        await provider.models()
    assert len(server.received(MODELS)) == 1


async def test_embeddings_are_made_and_counted(provider: Azure) -> None:
    assert await provider.embed("vectors", ["a", "b"]) == Embeddings([[0.0], [1.0]], Usage(prompt_tokens=4))
