"""Streamed chat completions, asked for by the official client over a real server."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.fakes.openai_server import DONE, delta, stream_reply, usage
from tests.openai.conftest import Upstream
from tests.openai.prompts import HELLO, WEATHER
from tests.server import ServerProcess


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stream_has_openais_form(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == "one two three"
    *said, end, counts = chunks
    assert [chunk.choices[0].finish_reason for chunk in said] == [None] * len(said)
    assert (end.choices[0].finish_reason, end.choices[0].delta.model_dump(exclude_unset=True)) == ("stop", {})
    assert [chunk.usage for chunk in (*said, end)] == [None] * (len(said) + 1)
    assert counts.choices == []
    assert counts.usage
    assert counts.usage.total_tokens == 6


def test_the_bytes_of_a_stream(server: ServerProcess) -> None:
    body = {"model": "echo", "messages": HELLO, "stream": True}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all("usage" not in chunk for chunk in chunks)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "one"},
        {"content": " two"},
        {"content": " three"},
        {},
    ]


async def test_the_async_client_streams(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model="echo", messages=HELLO, stream=True)
    async with stream:
        assert text_of([chunk async for chunk in stream]) == "one two three"


def test_tool_calls_and_thinking_stream(client: OpenAI, upstream: Upstream) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    upstream.script(
        stream_reply(delta(reasoning_content="Hm."), delta(tool_calls=[call]), delta("tool_calls"), usage(1, 1), DONE)
    )
    with client.chat.completions.stream(model="fake/tiny", messages=HELLO, tools=WEATHER) as stream:
        answer = stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert (calls[0].id, calls[0].function.name) == ("call_1", "weather")
    assert (answer.choices[0].message.model_extra or {})["reasoning_content"] == "Hm."
    assert not answer.choices[0].message.content


def test_a_failure_in_the_middle_is_an_error_and_no_end(
    client: OpenAI, server: ServerProcess, upstream: Upstream
) -> None:
    upstream.script(stream_reply(delta(content="Hel"), ending="cut"))
    with (
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        list(stream)
    assert caught.value.code == "provider_stream_broken"
    body = {"model": "fake/tiny", "messages": HELLO, "stream": True}
    events = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).text.split("\n\n")
    assert events.pop() == ""
    assert json.loads(events.pop().removeprefix("data: "))["error"]["code"] == "provider_stream_broken"
    assert '"Hel"' in events.pop()
    assert "[DONE]" not in "".join(events)
    assert '"finish_reason":"' not in "".join(events)
