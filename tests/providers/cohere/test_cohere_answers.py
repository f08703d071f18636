from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import LabError, ProviderError, ProviderTimeout, StreamBroken
from ai_lab.providers.cohere import Cohere
from ai_lab.providers.types import Chunk, Usage
from tests.fakes.cohere_server import (
    BEGUN,
    CHAT,
    CohereServer,
    arguments,
    billed,
    call_begun,
    ended,
    event,
    message,
    stream_reply,
    text,
    thought,
)
from tests.fakes.http_server import json_reply
from tests.providers.cohere.asking import ASKED, collect


async def test_text_reasoning_and_billed_tokens_of_a_whole_answer(server: CohereServer, provider: Cohere) -> None:
    server.script(
        CHAT,
        stream_reply(
            BEGUN,
            message("content-start", content={"type": "thinking", "thinking": "H"}),
            thought("m"),
            event("content-end", index=0),
            message("content-start", 1, content={"type": "text", "text": ""}),
            text("Yes"),
            message("citation-start", citations={"start": 0, "end": 3}),
            event("citation-end", index=0),
            event("something-new", index=0, delta=None),
            event("content-end", index=1),
            ended(usage={**billed(5.0, 4.0), "cached_tokens": 64}),
            b"data: [DONE]\n\n",
        ),
    )

    *pieces, final = await collect(provider)

    *thoughts, said = pieces
    assert {chunk.text for chunk in thoughts} == {""}
    assert ("".join(chunk.reasoning for chunk in thoughts), sum(chunk.pieces for chunk in thoughts)) == ("Hm", 2)
    assert said == Chunk(text="Yes")
    assert final == Chunk(finish_reason="stop", usage=Usage(prompt_tokens=5, completion_tokens=4, cached_tokens=5))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"tokens": {"input_tokens": 70, "output_tokens": 3}}, Usage(prompt_tokens=70, completion_tokens=3)),
        (None, None),
        ({"billed_units": None, "tokens": []}, None),
    ],
)
async def test_tokens_where_nothing_is_billed(
    server: CohereServer, provider: Cohere, told: dict[str, Any] | None, expected: Usage | None
) -> None:
    server.script(CHAT, stream_reply(text("x"), ended(usage=told)))

    assert (await collect(provider))[-1].usage == expected


async def test_tool_plan_is_reasoning_and_parallel_calls_are_numbered(server: CohereServer, provider: Cohere) -> None:
    function = {"name": "wait", "arguments": "{}"}
    server.script(
        CHAT,
        stream_reply(
            BEGUN,
            message("tool-plan-delta", tool_plan="I look."),
            call_begun(1, "look_a", "look"),
            arguments('{"at": ', 1),
            arguments('"Ä"}', 1),
            event("tool-call-end", index=1),
            message("tool-call-start", 2, tool_calls=[{"id": "wait_b", "type": "function", "function": function}]),
            arguments("", 2),
            event("tool-call-end", index=2),
            ended("TOOL_CALL", billed(9, 8)),
        ),
    )

    chunks = await collect(provider)

    assert chunks[0] == Chunk(reasoning="I look.")
    assert [part for chunk in chunks for part in chunk.tool_calls or []] == [
        {"index": 0, "id": "look_a", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"at": '}},
        {"index": 0, "function": {"arguments": '"Ä"}'}},
        {"index": 1, "id": "wait_b", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
    ]
    assert chunks[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("ERROR_TOXIC", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ],
)
async def test_reasons_to_stop(server: CohereServer, provider: Cohere, reason: str, expected: str) -> None:
    server.script(CHAT, stream_reply(text("x"), ended(reason)))

    assert (await collect(provider))[-1].finish_reason == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (ended("ERROR", error="model crashed"), ProviderError),
        (ended("ERROR"), ProviderError),
        (ended("TIMEOUT"), ProviderTimeout),
        (ended(""), StreamBroken),
        (b'data: {"message": "boom"}\n\n', ProviderError),
        (message("content-delta", content={"text": 7}), StreamBroken),
        (message("content-delta"), StreamBroken),
        (arguments("{}", 3), StreamBroken),
    ],
)
async def test_answer_that_ends_badly_keeps_its_beginning_and_raises(
    server: CohereServer, provider: Cohere, end: bytes, expected: type[LabError]
) -> None:
    server.script(CHAT, stream_reply(BEGUN, text("par"), end))
    stream = provider.stream(ASKED)

    assert (await anext(stream)).text == "par"
    with pytest.raises(LabError) as caught:
        await anext(stream)

    assert type(caught.value) is expected


async def test_answer_that_does_not_stream_is_read_too(server: CohereServer, provider: Cohere) -> None:
    said = {
        "role": "assistant",
        "tool_plan": "Hm",
        "content": [{"type": "text", "text": "whole"}],
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}],
    }
    server.script(CHAT, json_reply({"id": "1", "finish_reason": "TOOL_CALL", "message": said, "usage": billed(4, 1)}))

    first, final = await collect(provider)

    assert (first.text, first.reasoning) == ("whole", "Hm")
    assert first.tool_calls == [{"index": 0, **said["tool_calls"][0]}]  # type: ignore[dict-item]
    assert final.finish_reason == "tool_calls"
    assert final.usage == Usage(prompt_tokens=4, completion_tokens=1)
