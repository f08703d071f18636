"""What sets the services with OpenAI's API apart: names of options, reasoning, errors, lists of models."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import ProviderUnavailable, UnsupportedFeature
from ai_lab.providers.catalog import ADAPTERS
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.openai_options import DIALECTS, PLAIN
from ai_lab.providers.types import ChatRequest, Message, ModelInfo, Usage
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, event, stream_reply, text_reply, usage
from tests.providers.openai_compatible.asking import ASKED, collect, failure, opened

HI = [Message("user", "hi")]


def refusal(field: str, code: str = "unsupported_parameter") -> Any:
    error = {"message": f"'{field}' is not supported.", "type": "invalid_request_error", "param": field, "code": code}
    return json_reply({"error": error}, 400)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("openai", {"max_completion_tokens": 9, "reasoning_effort": "low"}),
        ("azure", {"max_completion_tokens": 9, "reasoning_effort": "low"}),
        (
            "openrouter",
            {
                "max_tokens": 9,
                "reasoning_effort": "low",
                "top_k": 4,
                "repetition_penalty": 1.1,
                "usage": {"include": True},
            },
        ),
        ("together", {"max_tokens": 9, "reasoning_effort": "low", "top_k": 4, "repetition_penalty": 1.1}),
        ("huggingface", {"max_tokens": 9, "reasoning_effort": "low"}),
        ("anything", {"max_tokens": 9, "reasoning_effort": "low"}),
    ],
)
async def test_options_have_each_services_names(server: OpenAIServer, service: str, expected: dict[str, Any]) -> None:
    options = {"max_tokens": 9, "reasoning_effort": "low", "top_k": 4, "repeat_penalty": 1.1}
    async with opened(server.base_url, dialect=DIALECTS.get(service, PLAIN)) as provider:
        chunks = await collect(provider, ChatRequest("org/model:groq", HI, options=options))

    body = server.requests[0].json()
    assert {name: body[name] for name in body if name not in {"messages", "stream", "stream_options"}} == {
        "model": "org/model:groq",
        **expected,
    }
    assert len(chunks[-1].warnings) == len(options) - len(expected.keys() - {"usage"})


async def test_one_call_at_a_time_is_asked_for_where_it_can_be(server: OpenAIServer) -> None:
    for service in ("openai", "azure", "openrouter", "anything"):
        async with opened(server.base_url, dialect=DIALECTS.get(service, PLAIN)) as provider:
            chunks = await collect(provider, ChatRequest("tiny", HI, options={"parallel_tool_calls": False}))
        sent = server.requests[-1].json()
        assert sent.get("parallel_tool_calls", "left out") == ("left out" if service == "anything" else False)
        assert len(chunks[-1].warnings) == (service == "anything")


async def test_options_that_a_model_refuses_are_left_out_from_then_on(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    server.script(
        CHAT, refusal("temperature", "unsupported_value"), refusal("max_tokens"), text_reply("a"), text_reply("b")
    )
    request = ChatRequest("o9", HI, options={"temperature": 0.5, "max_tokens": 9, "seed": 1})

    first, second = await collect(provider, request), await collect(provider, request)

    bodies = [sent.json() for sent in server.received(CHAT)]
    assert len(bodies) == 4
    assert ("temperature" in bodies[1], "max_tokens" in bodies[1]) == (False, True)
    for body in bodies[2:]:
        assert "temperature" not in body
        assert "max_tokens" not in body
        assert (body["max_completion_tokens"], body["seed"]) == (9, 1)
    assert (
        first[-1].warnings == second[-1].warnings == ("option 'temperature' is not supported by lab and was ignored",)
    )

    await collect(provider, ChatRequest("other", HI, options={"temperature": 0.5}))
    assert server.received(CHAT)[-1].json()["temperature"] == 0.5


async def test_an_answer_that_has_begun_is_not_asked_for_again(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    error = {"message": "'temperature' is not supported.", "param": "temperature", "code": "unsupported_parameter"}
    server.script(CHAT, stream_reply(delta(content="a"), event({"error": error})), text_reply("a second time"))

    assert isinstance(await failure(provider, ChatRequest("tiny", HI, options={"temperature": 1})), UnsupportedFeature)
    assert len(server.received(CHAT)) == 1


async def test_refusal_of_what_was_not_asked_is_told(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, refusal("tools"))

    error = await failure(provider, ChatRequest("tiny", HI, options={"temperature": 1}, tools=[{"type": "function"}]))

    assert (type(error), error.param) == (UnsupportedFeature, "tools")
    assert len(server.requests) == 1


async def test_fields_of_other_services_are_kept_from_those_that_refuse_them(server: OpenAIServer) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said = [Message("assistant", "", tool_calls=[call | {"extra_content": {"google": {}}}])]
    for dialect in (DIALECTS["openai"], PLAIN):
        async with opened(server.base_url, dialect=dialect) as provider:
            await collect(provider, ChatRequest("tiny", said))

    strict, plain = (request.json()["messages"][0]["tool_calls"][0] for request in server.requests)
    assert strict == call
    assert "extra_content" in plain


async def test_failure_of_the_service_behind_comes_through(server: OpenAIServer, provider: OpenAICompatible) -> None:
    choice = {"index": 0, "delta": {"content": ""}, "error": {"code": 502, "message": "Upstream is gone."}}
    server.script(
        CHAT,
        stream_reply(b": OPENROUTER PROCESSING\n\n", event({"choices": [{**choice, "finish_reason": "error"}]})),
        json_reply({"error": {"code": 503, "message": "No provider is available."}}),
    )

    assert [type(await failure(provider)) for _ in range(2)] == [ProviderUnavailable, ProviderUnavailable]


async def test_usage_counts_what_was_read_from_and_written_to_the_cache(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    details = {"cached_tokens": 5, "cache_write_tokens": 2}
    server.script(
        CHAT,
        stream_reply(delta("stop", content="a"), usage(9, 1, prompt_tokens_details=details), DONE),
        stream_reply(delta("stop", content="a"), usage(9, 1, prompt_cache_hit_tokens=4), DONE),
    )

    found = [(await collect(provider, ASKED))[-1].usage for _ in range(2)]

    assert found == [
        Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=5, cache_write_tokens=2),
        Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=4),
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"cost": 0.000_78}, 780_000),
        ({"cost": 0}, 0),
        ({"cost": 0.000_78, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.000_78}}, 780_000),
        ({"cost": 0.000_05, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.001}}, 1_050_000),
        ({"cost": 0.000_05, "cost_details": {"upstream_inference_cost": 0.001}}, 1_050_000),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": -0.1}, None),
        ({"cost": float("nan")}, None),
        ({"cost": float("inf")}, None),
        ({"cost": 1e6}, None),
        ({"cost": "0.1"}, None),
        ({"cost": True}, None),
        ({"cost": None}, None),
    ],
)
async def test_cost_is_what_a_known_service_says(
    server: OpenAIServer, told: dict[str, Any], expected: int | None
) -> None:
    server.script(CHAT, *[stream_reply(delta("stop", content="a"), usage(9, 1, **told), DONE)] * 2)
    for dialect, cost in ((DIALECTS["openrouter"], expected), (PLAIN, None)):
        async with opened(server.base_url, dialect=dialect) as provider:
            told_usage = (await collect(provider))[-1].usage
        assert told_usage == Usage(prompt_tokens=9, completion_tokens=1, cost_nanousd=cost)


async def test_cost_of_vectors_is_what_a_known_service_says(server: OpenAIServer) -> None:
    told = {"prompt_tokens": 4, "total_tokens": 4, "cost": 0.000_000_08}
    server.script("/v1/embeddings", json_reply({"data": [{"index": 0, "embedding": [1.0]}], "usage": told}))
    for dialect, cost in ((DIALECTS["openrouter"], 80), (PLAIN, None)):
        async with opened(server.base_url, dialect=dialect) as provider:
            assert (await provider.embed("tiny", ["a"])).usage == Usage(prompt_tokens=4, cost_nanousd=cost)


async def test_cost_is_believed_of_the_service_itself_alone(server: OpenAIServer) -> None:
    server.script(CHAT, stream_reply(delta("stop", content="a"), usage(9, 1, cost=0.5), DONE))
    provider = ADAPTERS["openai"]("openrouter", server.base_url)
    (*_, last) = [chunk async for chunk in provider.stream(ASKED)]
    await provider.close()

    assert last.usage == Usage(prompt_tokens=9, completion_tokens=1)
    assert server.requests[0].json()["usage"] == {"include": True}


async def test_mark_of_the_prompt_cache_goes_to_services_that_know_it(server: OpenAIServer) -> None:
    marked: list[dict[str, Any]] = [
        {"type": "text", "text": "Long.\n", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Short."},
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    said = [Message("system", marked), Message("user", [marked[0], image])]
    for dialect in (DIALECTS["openrouter"], PLAIN):
        async with opened(server.base_url, dialect=dialect) as provider:
            await collect(provider, ChatRequest("tiny", said))

    known, plain = ([message["content"] for message in sent.json()["messages"]] for sent in server.requests)
    assert known == [marked, [marked[0], image]]
    assert plain == ["Long.\nShort.", [{"type": "text", "text": "Long.\n"}, image]]


async def test_lists_of_models_are_read_in_each_services_shape(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    openrouter = {
        "id": "vendor/sees",
        "context_length": 200_000,
        "top_provider": {"context_length": 128_000},
        "architecture": {"input_modalities": ["text", "image"]},
        "supported_parameters": ["tools", "response_format", "reasoning", "seed"],
    }
    together = [
        {"id": "vendor/chat", "type": "chat", "context_length": 4096},
        {"id": "vendor/paints", "type": "image"},
        {"id": "vendor/vectors", "type": "embedding"},
    ]
    servers = [
        {"provider": "a", "status": "live", "context_length": 8192, "supports_tools": True},
        {"provider": "b", "status": "live", "context_length": 4096},
        {"provider": "c", "status": "error", "context_length": 1},
    ]
    server.script("/v1/models", json_reply([openrouter, *together, {"id": "vendor/hosted", "providers": servers}]))

    assert await provider.models() == [
        ModelInfo("vendor/sees", 128_000, capabilities=frozenset({"images", "tools", "json", "thinking"})),
        ModelInfo("vendor/chat", 4096),
        ModelInfo("vendor/vectors", capabilities=frozenset({"embeddings"})),
        ModelInfo("vendor/hosted", 4096, capabilities=frozenset({"tools"})),
    ]
