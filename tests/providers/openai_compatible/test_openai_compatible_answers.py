from __future__ import annotations

import asyncio
import json

import pytest

from ai_lab.errors import (
    LabError,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.openai_options import EXTENDED
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider, Usage
from tests.fakes.http_server import Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, event, stream_reply, text_reply
from tests.providers.openai_compatible.asking import ASKED, KEY, collect, failure, opened

# -- whole answers ------------------------------------------------------------------------------------------------


def test_it_fits_the_protocol() -> None:
    _: type[Provider] = OpenAICompatible  # the type checker looks at the rest
    assert OpenAICompatible.supports_tools


async def test_answer_ends_with_one_chunk_that_carries_reason_usage_and_timings(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    timings = {"prompt_ms": 12.5, "predicted_ms": 30, "cache_n": 3}
    counts = {"prompt_tokens": 11, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}}
    server.script(
        CHAT,
        stream_reply(
            b": a comment\n\n",
            delta(role="assistant", content=""),
            delta(content="Hel"),
            delta("length", content="lo"),
            event({"choices": [], "usage": counts, "timings": timings}),
            DONE,
        ),
    )

    *pieces, final = await collect(provider)

    assert {chunk.reasoning for chunk in pieces} == {""}
    assert ("".join(chunk.text for chunk in pieces), sum(chunk.pieces for chunk in pieces)) == ("Hello", 2)
    assert final == Chunk(
        finish_reason="length",
        usage=Usage(prompt_tokens=11, completion_tokens=2, cached_tokens=3, reasoning_tokens=1),
        timings={"prompt_ms": 12.5, "generation_ms": 30.0},
    )


async def test_request_has_the_shape_of_the_api(server: OpenAIServer, provider: OpenAICompatible) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    request = ChatRequest(
        "tiny",
        [
            Message("system", "Be brief."),
            Message("assistant", "", tool_calls=[call]),
            Message("tool", "42", tool_call_id="c1"),
        ],
        options={"temperature": 0.5, "max_tokens": 9, "stop": ["x"], "top_k": 4, "mirostat": 1, "seed": None},
        tools=[tool],
        tool_choice="auto",
        response_format={"type": "json_object"},
    )

    chunks = await collect(provider, request)

    [sent] = server.received(CHAT)
    assert sent.json() == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["x"],
        "tools": [tool],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    }
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert chunks[-1].warnings == (
        "option 'mirostat' is not supported by lab and was ignored",
        "option 'top_k' is not supported by lab and was ignored",
    )


async def test_extended_options_are_sent_to_a_server_that_knows_them(server: OpenAIServer) -> None:
    options = {"top_k": 4, "min_p": 0.1, "repeat_penalty": 1.2}
    async with opened(server.base_url, dialect=EXTENDED) as provider:
        chunks = await collect(provider, ChatRequest("tiny", [Message("user", "hi")], options=options))

    sent = server.received(CHAT)[0]
    assert options.items() <= sent.json().items()
    assert "authorization" not in sent.headers
    assert chunks[-1].warnings == ()


async def test_reasoning_is_kept_apart_under_both_of_its_names(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    server.script(
        CHAT,
        stream_reply(delta(reasoning_content="Hm"), delta(reasoning=", so"), delta(content="Yes"), delta("stop"), DONE),
    )

    chunks = await collect(provider)

    assert "".join(chunk.reasoning for chunk in chunks) == "Hm, so"
    assert "".join(chunk.text for chunk in chunks) == "Yes"
    assert chunks[-1].usage is None


async def test_tool_calls_pass_as_deltas_and_get_an_index_where_they_have_none(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    first = {"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"x": 1}'}}
    server.script(
        CHAT,
        stream_reply(delta(tool_calls=[first]), delta(tool_calls=[more]), delta("tool_calls"), DONE),
        stream_reply(delta(tool_calls=[{"id": "a"}]), delta(tool_calls=[{"id": "b"}]), delta("tool_calls"), DONE),
    )

    numbered = await collect(provider)
    unnumbered = await collect(provider)

    assert [chunk.tool_calls for chunk in numbered] == [[first], [more], None]
    assert numbered[-1].finish_reason == "tool_calls"
    assert [chunk.tool_calls for chunk in unnumbered] == [[{"id": "a", "index": 0}], [{"id": "b", "index": 1}], None]


async def test_characters_split_over_reads_arrive_whole(server: OpenAIServer, provider: OpenAICompatible) -> None:
    whole = delta(content="\u00e4\U0001f600\u0085\u2028z") + delta("stop") + DONE
    parts: list[bytes | float] = []
    for at in range(len(whole)):
        parts += [whole[at : at + 1], 0]
    server.script(CHAT, stream_reply(*parts))

    chunks = await collect(provider)

    assert chunks[0].text == "\u00e4\U0001f600\u0085\u2028z"
    assert chunks[-1].finish_reason == "stop"


async def test_windows_line_ends_and_data_without_a_space_are_read(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    body = (delta(content="ok") + delta("stop") + DONE).replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    server.script(CHAT, stream_reply(body))

    assert [chunk.text for chunk in await collect(provider)] == ["ok", ""]


async def test_half_a_surrogate_pair_becomes_a_character_that_can_be_stored(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    halves = [json.dumps({"choices": [{"delta": {"content": text}}]}).encode() for text in ("\ud83d", "\ude00!")]
    server.script(CHAT, stream_reply(*(b"data: " + half + b"\n" for half in halves), delta("stop"), DONE))

    text = "".join(chunk.text for chunk in await collect(provider))

    assert text == "\ufffd\ufffd!"


async def test_service_that_does_not_stream_is_read_too(server: OpenAIServer, provider: OpenAICompatible) -> None:
    choice = {"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    server.script(CHAT, json_reply({"choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 1}}))

    first, final = await collect(provider)

    assert first.text == "whole"
    assert final.usage == Usage(prompt_tokens=4, completion_tokens=1)


async def test_connection_serves_again_after_a_whole_answer(server: OpenAIServer, provider: OpenAICompatible) -> None:
    for _ in range(3):
        await collect(provider)

    assert server.connection_count == 1


async def test_answer_is_whole_when_the_connection_is_lost_after_the_finish_reason(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    server.script(CHAT, stream_reply(delta(content="all"), delta("stop"), ending="cut"))

    assert [chunk.finish_reason for chunk in await collect(provider)] == [None, "stop"]


# -- broken answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (stream_reply(delta(content="par"), ending="cut"), StreamBroken),
        (stream_reply(delta(content="par")), StreamBroken),
        (stream_reply(delta(content="par"), DONE), StreamBroken),
        (stream_reply(delta(content="par"), b"data: {nonsense\n\n"), StreamBroken),
        (stream_reply(delta(content="par"), b"data: [1]\n\n"), StreamBroken),
        (stream_reply(delta(content="par"), b'data: {"choices": [7]}\n\n'), StreamBroken),
        (stream_reply(delta(content="par"), b'data: {"choices": ' + b"[" * 100_000 + b"\n\n"), StreamBroken),
        (stream_reply(delta(content="par"), b'data: "\xff"\n\n'), StreamBroken),
        (stream_reply(delta(content="par"), delta("error")), StreamBroken),
        (stream_reply(delta(content="par"), event({"error": {"message": "boom", "code": 500}})), ProviderError),
        (stream_reply(delta(content="par"), event({"error": {"message": "busy", "code": 503}})), ProviderUnavailable),
        (stream_reply(delta(content="par"), event({"error": {"type": "overloaded_error"}})), ProviderUnavailable),
        (stream_reply(delta(content="par"), event({"error": {"code": "rate_limit_exceeded"}})), ProviderRateLimited),
        (stream_reply(delta(content="par"), b'error: {"code": 503, "message": "busy"}\n\n'), ProviderUnavailable),
    ],
)
async def test_broken_stream_keeps_its_beginning_and_raises(
    server: OpenAIServer, provider: OpenAICompatible, reply: Reply, expected: type[LabError]
) -> None:
    server.script(CHAT, reply)
    stream = provider.stream(ASKED)

    assert (await anext(stream)).text == "par"
    with pytest.raises(LabError) as caught:
        await anext(stream)

    assert type(caught.value) is expected


async def test_silence_after_the_headers_is_a_timeout(server: OpenAIServer) -> None:
    server.script(CHAT, stream_reply(ending="hang"))
    async with opened(server.base_url, timeout_seconds=0.2) as provider:
        assert type(await failure(provider)) is ProviderTimeout


async def test_line_of_ten_megabytes_is_read_and_a_longer_one_is_not(
    server: OpenAIServer, provider: OpenAICompatible
) -> None:
    long = "x" * 9_990_000
    server.script(CHAT, text_reply(long), stream_reply(delta(content=long * 2), delta("stop"), DONE))

    assert (await collect(provider))[0].text == long
    assert type(await failure(provider)) is StreamBroken


async def test_closing_early_disconnects(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, stream_reply(delta(content="first"), ending="hang"))
    stream = provider.stream(ASKED)
    assert (await anext(stream)).text == "first"

    await stream.aclose()

    await asyncio.wait_for(server.requests[0].disconnected.wait(), timeout=30)


async def test_cancelled_task_disconnects(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, stream_reply(ending="hang"))
    task = asyncio.create_task(collect(provider))
    request = await server.next_request()

    task.cancel()

    await asyncio.wait_for(request.disconnected.wait(), timeout=30)
    with pytest.raises(asyncio.CancelledError):
        await task
