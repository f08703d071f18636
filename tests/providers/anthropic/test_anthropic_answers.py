from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import (
    ContextOverflow,
    LabError,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from ai_lab.providers.anthropic import Anthropic
from ai_lab.providers.types import ChatRequest, Chunk, Message, Usage
from tests.fakes.anthropic_server import (
    MESSAGES,
    PING,
    STOP,
    AnthropicServer,
    arguments,
    begun,
    closed,
    ended,
    event,
    failed,
    opened,
    signed,
    stream_reply,
    text,
    text_reply,
    thought,
)
from tests.fakes.http_server import json_reply
from tests.providers.anthropic.asking import ASKED, collect


async def test_text_reasoning_and_usage_of_a_whole_answer(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(
        MESSAGES,
        stream_reply(
            begun(input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=20, output_tokens=1),
            PING,
            opened(0, "thinking", thinking="", signature=""),
            thought("Hm"),
            signed("c2ln"),
            closed(0),
            opened(1, "redacted_thinking", data="c2VjcmV0"),
            closed(1),
            event("something_new", value=[1]),
            opened(2, "text", text="Y"),
            text("es", 2),
            event("content_block_delta", index=2, delta={"type": "citations_delta", "citation": {}}),
            closed(2),
            ended(output_tokens=9, input_tokens=10, output_tokens_details={"thinking_tokens": 4}),
        ),
    )

    *pieces, final = await collect(provider)

    first, *said = pieces
    assert first == Chunk(reasoning="Hm")
    assert {chunk.reasoning for chunk in said} == {""}
    assert ("".join(chunk.text for chunk in said), sum(chunk.pieces for chunk in said)) == ("Yes", 2)
    assert final == Chunk(
        finish_reason="stop",
        usage=Usage(
            prompt_tokens=130, completion_tokens=9, cached_tokens=100, reasoning_tokens=4, cache_write_tokens=20
        ),
    )


async def test_counts_that_only_the_beginning_tells_are_kept(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MESSAGES, stream_reply(begun(input_tokens=7, output_tokens=1), text("x"), ended(input_tokens=0)))

    assert (await collect(provider))[-1].usage == Usage(prompt_tokens=7, completion_tokens=1)


async def test_service_that_counts_nothing_leaves_usage_unknown(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MESSAGES, stream_reply(begun(), text("x"), ended()))

    assert (await collect(provider))[-1].usage is None


async def test_parallel_tool_calls_are_numbered_apart_from_other_blocks(
    server: AnthropicServer, provider: Anthropic
) -> None:
    server.script(
        MESSAGES,
        stream_reply(
            begun(input_tokens=1, output_tokens=1),
            opened(0, "text", text=""),
            text("Looking."),
            closed(0),
            opened(1, "tool_use", id="toolu_a", name="look", input={}),
            arguments("", 1),
            arguments('{"at": ', 1),
            arguments('"Ä"}', 1),
            closed(1),
            opened(2, "tool_use", id="toolu_b", name="wait", input={}),
            closed(2),
            opened(3, "tool_use", id="toolu_c", name="go", input={"to": "é"}),
            closed(3),
            ended("tool_use", output_tokens=30),
        ),
    )

    chunks = await collect(provider)

    parts = [part for chunk in chunks for part in chunk.tool_calls or []]
    assert parts == [
        {"index": 0, "id": "toolu_a", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"at": '}},
        {"index": 0, "function": {"arguments": '"Ä"}'}},
        {"index": 1, "id": "toolu_b", "type": "function", "function": {"name": "wait", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
        {"index": 2, "id": "toolu_c", "type": "function", "function": {"name": "go", "arguments": ""}},
        {"index": 2, "function": {"arguments": '{"to": "é"}'}},
    ]
    assert chunks[-1].finish_reason == "tool_calls"


async def test_signed_thoughts_go_back_with_the_call_that_they_led_to(
    server: AnthropicServer, provider: Anthropic
) -> None:
    server.script(
        MESSAGES,
        stream_reply(
            opened(0, "thinking", thinking="", signature=""),
            thought("So"),
            thought("…"),
            signed("c2ln"),
            closed(0),
            opened(1, "redacted_thinking", data="eA=="),
            closed(1),
            opened(2, "tool_use", id="a", name="look", input={}),
            closed(2),
            opened(3, "tool_use", id="b", name="look", input={}),
            closed(3),
            ended("tool_use"),
        ),
        text_reply("ok"),
    )
    parts = [part for chunk in await collect(provider) for part in chunk.tool_calls or []]
    calls = [part for part in parts if "id" in part]

    results = [Message("tool", "42", tool_call_id=call["id"]) for call in calls]
    messages = [*ASKED.messages, Message("assistant", "Looking.", tool_calls=calls), *results]
    await collect(provider, ChatRequest("claude-tiny", messages))

    blocks = server.received(MESSAGES)[-1].json()["messages"][1]["content"]
    assert blocks[:3] == [
        {"type": "thinking", "thinking": "So…", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "Looking."},
    ]
    assert [block["type"] for block in blocks[3:]] == ["tool_use", "tool_use"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("some_new_reason", "stop"),
    ],
)
async def test_reasons_to_stop(server: AnthropicServer, provider: Anthropic, reason: str, expected: str) -> None:
    server.script(MESSAGES, stream_reply(text("x"), ended(reason)))

    assert (await collect(provider))[-1].finish_reason == expected


async def test_answer_that_does_not_stream_is_read_too(server: AnthropicServer, provider: Anthropic) -> None:
    content = [
        {"type": "thinking", "thinking": "Hm"},
        {"type": "text", "text": "whole"},
        {"type": "tool_use", "id": "toolu_a", "name": "look", "input": {"x": 1}},
    ]
    usage = {"input_tokens": 4, "output_tokens": 3, "cache_read_input_tokens": 2}
    server.script(
        MESSAGES, json_reply({"type": "message", "content": content, "stop_reason": "tool_use", "usage": usage})
    )

    first, final = await collect(provider)

    assert (first.text, first.reasoning) == ("whole", "Hm")
    assert first.tool_calls == [
        {"index": 0, "id": "toolu_a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
    ]
    assert final.finish_reason == "tool_calls"
    assert final.usage == Usage(prompt_tokens=6, completion_tokens=3, cached_tokens=2)


async def test_answer_is_whole_once_the_reason_to_stop_is_told(server: AnthropicServer, provider: Anthropic) -> None:
    whole = ended(output_tokens=1).removesuffix(STOP)
    server.script(MESSAGES, stream_reply(text("all"), whole, ending="cut"))

    assert [chunk.finish_reason for chunk in await collect(provider)] == [None, "stop"]


async def test_nothing_is_read_after_the_end(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MESSAGES, stream_reply(text("all"), ended() + STOP + text("more") + failed("api_error")))

    assert [chunk.text for chunk in await collect(provider)] == ["all", ""]


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("overloaded_error", "Overloaded", ProviderUnavailable),
        ("api_error", "Internal server error", ProviderError),
        ("rate_limit_error", "slow down", ProviderRateLimited),
        ("authentication_error", "invalid x-api-key", ProviderAuthFailed),
        ("timeout_error", "took too long", ProviderTimeout),
        ("billing_error", "pay first", ProviderQuotaExceeded),
        ("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextOverflow),
    ],
)
async def test_error_in_the_middle_of_a_stream_is_typed(
    server: AnthropicServer, provider: Anthropic, kind: str, message: str, expected: type[LabError]
) -> None:
    server.script(MESSAGES, stream_reply(begun(input_tokens=1), text("par"), failed(kind, message)))
    stream = provider.stream(ASKED)

    assert (await anext(stream)).text == "par"
    with pytest.raises(LabError) as caught:
        await anext(stream)

    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}},
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "content_block_start", "index": 0},
        {"type": "message_start", "message": []},
        {"type": "message_delta", "delta": {"stop_reason": 7}},
    ],
)
async def test_event_of_another_shape_breaks_the_stream(
    server: AnthropicServer, provider: Anthropic, payload: dict[str, Any]
) -> None:
    kind = payload.pop("type")
    server.script(MESSAGES, stream_reply(event(kind, **payload), ended()))

    with pytest.raises(StreamBroken, match="shape of its API"):
        await collect(provider)
