from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from ai_lab import clock
from ai_lab.errors import (
    ContextOverflow,
    LabError,
    ModelNotFound,
    ProviderAuthFailed,
    ProviderError,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
    UnsupportedFeature,
)
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider, Usage
from tests.fakes.http_server import Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, event, stream_reply, text_reply

KEY = "sk-proj-abcdefghijklmnop-1234567890"
ASKED = ChatRequest("tiny", [Message("user", "hi")])


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


@pytest.fixture
async def provider(server: OpenAIServer) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible("lab", server.base_url, api_key=lambda: KEY, timeout_seconds=5)
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def opened(base_url: str, **more: Any) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible("lab", base_url, **more)
    yield made
    await made.close()


async def collect(provider: OpenAICompatible, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: OpenAICompatible, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value


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

    assert pieces == [Chunk(text="Hel"), Chunk(text="lo")]
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
    async with opened(server.base_url, extended_options=True) as provider:
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


async def test_closing_early_disconnects_within_a_second(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, stream_reply(delta(content="first"), ending="hang"))
    stream = provider.stream(ASKED)
    assert (await anext(stream)).text == "first"

    await stream.aclose()

    await asyncio.wait_for(server.requests[0].disconnected.wait(), timeout=1)


async def test_cancelled_task_disconnects_within_a_second(server: OpenAIServer, provider: OpenAICompatible) -> None:
    server.script(CHAT, stream_reply(ending="hang"))
    task = asyncio.create_task(collect(provider))
    request = await server.next_request()

    task.cancel()

    await asyncio.wait_for(request.disconnected.wait(), timeout=1)
    with pytest.raises(asyncio.CancelledError):
        await task


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
    async with opened(server.base_url, api_key=lambda: "sk-\u00e4\nsecret") as provider:
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
        json_reply(said, 402),
    )

    waits = [await failure(provider) for _ in range(4)]

    assert all(type(error) is ProviderRateLimited for error in waits)
    assert waits[0].retry_after_seconds == 7
    assert 80 < (waits[1].retry_after_seconds or 0) <= 90
    assert [error.retry_after_seconds for error in waits[2:]] == [None, None]


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
    await asyncio.wait_for(server.requests[0].disconnected.wait(), timeout=1)


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
    assert await provider.embed("tiny", ["a", "b"]) == [[0.0, 0.5], [1.0, 0.5]]

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
