from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import (
    InvalidRequest,
    LabError,
    UnsupportedFeature,
)
from ai_lab.providers.ollama import Ollama
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider, Usage
from tests.fakes.http_server import json_reply
from tests.fakes.ollama_server import CHAT, OllamaServer, last, piece, stream_reply
from tests.providers.ollama.asking import ASKED, collect, failure, opened, sent

# -- whole answers ------------------------------------------------------------------------------------------------


def test_it_fits_the_protocol() -> None:
    _: type[Provider] = Ollama  # the type checker looks at the rest
    assert Ollama.supports_tools


async def test_answer_ends_with_one_chunk_that_carries_reason_usage_and_timings(
    server: OllamaServer, provider: Ollama
) -> None:
    server.script(CHAT, stream_reply(piece("Hel"), piece("lo"), last(9, "length", prompt_eval_cached_count=4)))

    chunks = await collect(provider)

    assert chunks == [
        Chunk(text="Hel"),
        Chunk(text="lo"),
        Chunk(
            finish_reason="length",
            usage=Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4),
            timings={"load_ms": 20.0, "prompt_ms": 30.0, "generation_ms": 40.0},
        ),
    ]


async def test_thinking_is_kept_apart(server: OllamaServer, provider: Ollama) -> None:
    server.script(CHAT, stream_reply(piece(thinking="Hm"), piece("Yes"), last()))

    assert [(chunk.reasoning, chunk.text) for chunk in await collect(provider)] == [("Hm", ""), ("", "Yes"), ("", "")]


@pytest.mark.parametrize(("configured", "expected"), [(4096, 4096), (100_000, 8192)])
async def test_context_is_always_sent_and_asked_of_the_server_once(
    server: OllamaServer, configured: int, expected: int
) -> None:
    async with opened(server.base_url, context_tokens=configured) as provider:
        await collect(provider)
        await collect(provider)
        assert await provider.context_tokens("tiny") == expected

    assert [request.json()["options"] for request in server.received(CHAT)] == [{"num_ctx": expected}] * 2
    assert len(server.received("/api/show")) == 1


async def test_request_has_the_shape_of_the_api(server: OllamaServer, provider: Ollama) -> None:
    # A nested schema must arrive as it was given; the package's own classes would drop most of it.
    schema = {"type": "object", "properties": {"at": {"type": "object", "properties": {"x": {"const": 1}}}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
    picture: list[dict[str, Any]] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    request = ChatRequest(
        "tiny",
        [
            Message("assistant", "", tool_calls=[call]),
            Message("tool", "42", tool_call_id="c1"),
            Message("user", picture),
        ],
        options={
            "temperature": 0.5,
            "max_tokens": 9,
            "stop": "x",
            "top_k": 4,
            "min_p": 0.1,
            "mirostat": 1,
            "seed": None,
        },
        tools=[tool],
        tool_choice="required",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )

    chunks = await collect(provider, request)

    assert sent(server) == {
        "model": "tiny",
        "messages": [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {"x": 1}}}],
            },
            {"role": "tool", "content": "42", "tool_call_id": "c1", "tool_name": "look"},
            {"role": "user", "content": "What is this?", "images": ["aGk="]},
        ],
        "stream": True,
        "options": {
            "temperature": 0.5,
            "num_predict": 9,
            "stop": ["x"],
            "top_k": 4,
            "min_p": 0.1,
            "num_ctx": 4096,
        },
        "tools": [tool],
        "format": schema,
    }
    assert chunks[-1].warnings == (
        "option 'mirostat' is not supported by ollama and was ignored",
        "a tool_choice other than auto and none is not supported by ollama and was ignored",
    )


async def test_plain_json_and_forbidden_tools(server: OllamaServer, provider: Ollama) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    await collect(
        provider,
        ChatRequest("tiny", ASKED.messages, tools=tools, tool_choice="none", response_format={"type": "json_object"}),
    )

    assert sent(server)["format"] == "json"
    assert "tools" not in sent(server)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}, UnsupportedFeature),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, UnsupportedFeature),
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1/;base64,aGk="}}, UnsupportedFeature),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,aG k="}}, InvalidRequest),
        ({"type": "input_audio", "input_audio": {}}, UnsupportedFeature),
    ],
)
async def test_only_images_that_came_along_are_sent(
    server: OllamaServer, provider: Ollama, part: dict[str, Any], expected: type[LabError]
) -> None:
    error = await failure(provider, ChatRequest("tiny", [Message("user", [part])]))

    assert type(error) is expected
    assert not server.received(CHAT)


async def test_tool_calls_get_the_shape_of_openai(server: OllamaServer, provider: Ollama) -> None:
    calls = [{"function": {"name": "look", "arguments": {"x": "ä"}}}, {"id": "own", "function": {"name": "stop"}}]
    server.script(CHAT, stream_reply(piece(tool_calls=calls), last()))

    first, final = await collect(provider)

    assert first.tool_calls
    made_up_id = first.tool_calls[0].pop("id")
    assert made_up_id.startswith("call_")
    assert first.tool_calls == [
        {"index": 0, "type": "function", "function": {"name": "look", "arguments": '{"x": "ä"}'}},
        {"index": 1, "id": "own", "type": "function", "function": {"name": "stop", "arguments": "{}"}},
    ]
    assert final.finish_reason == "tool_calls"


async def test_characters_split_over_reads_arrive_whole(server: OllamaServer, provider: Ollama) -> None:
    whole = piece("\u00e4\U0001f600\u0085\u2028z") + last()
    parts: list[bytes | float] = []
    for at in range(len(whole)):
        parts += [whole[at : at + 1], 0]
    server.script(CHAT, stream_reply(*parts))

    chunks = await collect(provider)

    assert chunks[0].text == "\u00e4\U0001f600\u0085\u2028z"


# -- cut prompts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "evaluated", "version", "more", "warned"),
    [
        pytest.param(3000, 5, "0.33.2", {}, "evaluated 5 prompt tokens of about 3000 sent", id="fewer than sent"),
        pytest.param(3000, 5, "?", {"prompt_eval_cached_count": 1}, "of about 3000 sent", id="says what was cached"),
        pytest.param(6000, 2050, "0.1.30", {}, "of about 6000 sent", id="more than the context holds"),
        pytest.param(6000, None, "0.33.2", {}, "of about 6000 sent", id="more than fits, not counted"),
        pytest.param(2000, 4095, "0.33.2", {}, "evaluated 4095 prompt tokens", id="context filled"),
        pytest.param(3000, 5, "0.1.30", {}, None, id="old version: the rest was cached"),
        pytest.param(3000, 5, "dev", {}, None, id="unknown version: perhaps cached"),
        pytest.param(3000, None, "0.33.2", {}, None, id="not counted"),
        pytest.param(3000, 3900, "0.33.2", {}, None, id="whole"),
        pytest.param(6000, 7000, "0.33.2", {}, None, id="whole on a server that has its own context"),
    ],
)
async def test_cut_prompt_is_told_and_a_cached_one_is_not_taken_for_it(  # noqa: PLR0917  # one row, one case
    server: OllamaServer,
    provider: Ollama,
    words: int,
    evaluated: int | None,
    version: str,
    more: dict[str, Any],
    warned: str | None,
) -> None:
    server.script("/api/version", json_reply({"version": version}))
    server.script(CHAT, stream_reply(piece("ok"), last(evaluated, **more)))

    chunks = await collect(provider, ChatRequest("tiny", [Message("user", "word " * words)]))

    if warned:
        [warning] = chunks[-1].warnings
        assert warned in warning
        assert "AI_LAB_CONTEXT_TOKENS" in warning
    else:
        assert chunks[-1].warnings == ()
