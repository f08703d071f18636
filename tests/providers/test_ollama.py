from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from ai_lab.errors import (
    ContextOverflow,
    InvalidRequest,
    InvalidSettings,
    LabError,
    ModelNotFound,
    OutOfMemory,
    ProviderAuthFailed,
    ProviderError,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
    UnsupportedFeature,
)
from ai_lab.providers.ollama import Ollama
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider, Usage
from tests.fakes.http_server import Reply, json_reply
from tests.fakes.ollama_server import CHAT, OllamaServer, last, line, piece, stream_reply

ASKED = ChatRequest("tiny", [Message("user", "hi")])


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer() as running:
        yield running


@pytest.fixture
async def provider(server: OllamaServer) -> AsyncIterator[Ollama]:
    async with opened(server.base_url) as made:
        yield made


@contextlib.asynccontextmanager
async def opened(host: str, *, context_tokens: int = 4096, timeout_seconds: float = 5) -> AsyncIterator[Ollama]:
    made = Ollama("ollama", host, context_tokens=context_tokens, timeout_seconds=timeout_seconds)
    yield made
    await made.close()


async def collect(provider: Ollama, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: Ollama, request: ChatRequest = ASKED) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, request)
    return caught.value


def sent(server: OllamaServer) -> Any:
    return server.received(CHAT)[-1].json()


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


# -- broken answers and refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (stream_reply(piece("par"), ending="cut"), StreamBroken),
        (stream_reply(piece("par")), StreamBroken),
        (stream_reply(piece("par"), b"{nonsense\n"), StreamBroken),
        (stream_reply(piece("par"), b'{"message": 7}\n'), StreamBroken),
        (stream_reply(piece("par"), b'{"message": {"content": 7}}\n'), StreamBroken),
        (stream_reply(piece("par"), line({"error": "llama runner process has terminated"})), ProviderError),
        (stream_reply(piece("par"), line({"error": "busy", "status": 503})), ProviderUnavailable),
        (stream_reply(piece("par"), last(done_reason="load")), ProviderError),
    ],
)
async def test_broken_stream_keeps_its_beginning_and_raises(
    server: OllamaServer, provider: Ollama, reply: Reply, expected: type[LabError]
) -> None:
    server.script(CHAT, reply)
    stream = provider.stream(ASKED)

    assert (await anext(stream)).text == "par"
    with pytest.raises(LabError) as caught:
        await anext(stream)

    assert type(caught.value) is expected


async def test_silence_after_the_headers_is_a_timeout(server: OllamaServer) -> None:
    server.script(CHAT, stream_reply(ending="hang"))
    async with opened(server.base_url, timeout_seconds=0.2) as provider:
        assert type(await failure(provider)) is ProviderTimeout


async def test_closing_early_disconnects_within_a_second(server: OllamaServer, provider: Ollama) -> None:
    server.script(CHAT, stream_reply(piece("first"), ending="hang"))
    stream = provider.stream(ASKED)
    assert (await anext(stream)).text == "first"

    await stream.aclose()

    [request] = server.received(CHAT)
    await asyncio.wait_for(request.disconnected.wait(), timeout=1)


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (400, "invalid options: temperature", ProviderRefused),
        (400, "tiny does not support tools", UnsupportedFeature),
        (400, "the input length exceeds the context length", ContextOverflow),
        (401, "unauthorized", ProviderAuthFailed),
        (404, "model 'tiny' not found", ModelNotFound),
        (500, "model requires more system memory (5.5 GiB) than is available (2.1 GiB)", OutOfMemory),
        (500, "boom", ProviderError),
        (503, "server busy, please try again", ProviderUnavailable),
    ],
)
async def test_status_decides_the_error(
    server: OllamaServer, provider: Ollama, status: int, said: str, expected: type[LabError]
) -> None:
    server.script(CHAT, json_reply({"error": said}, status))

    assert type(await failure(provider)) is expected


async def test_missing_model_tells_how_to_get_it(server: OllamaServer, provider: Ollama) -> None:
    server.script("/api/show", json_reply({"error": "model 'huge' not found"}, 404))

    error = await failure(provider, ChatRequest("huge", ASKED.messages))

    assert type(error) is ModelNotFound
    assert "ollama pull huge" in error.detail
    assert not server.received(CHAT)


async def test_key_of_the_package_is_never_repeated(monkeypatch: pytest.MonkeyPatch, server: OllamaServer) -> None:
    key = "0123456789abcdef.secret"
    monkeypatch.setenv("OLLAMA_API_KEY", key)
    server.script(CHAT, json_reply({"error": f"invalid key {key}"}, 401))
    async with opened(server.base_url) as provider:
        error = await failure(provider)

    assert server.received(CHAT)[0].headers["authorization"] == f"Bearer {key}"
    assert "invalid key" in error.detail
    assert key not in error.detail


async def test_server_that_is_off_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with opened(f"127.0.0.1:{taken.getsockname()[1]}") as provider:
            error = await failure(provider)
            check = await provider.check()
            with pytest.raises(ProviderUnavailable):
                await provider.models()

    assert type(error) is ProviderUnavailable
    assert "nothing listens there" in error.detail
    assert not check.reachable
    assert "ollama serve" in (check.remedy or "")


async def test_redirect_is_not_followed(server: OllamaServer, provider: Ollama) -> None:
    server.script(CHAT, Reply([], 301, {"location": f"{server.origin}/elsewhere"}))
    server.script("/api/tags", Reply([], 301, {"location": f"{server.origin}/elsewhere"}))

    assert "redirects to" in (await failure(provider)).detail
    with pytest.raises(ProviderError, match="redirects"):
        await provider.models()
    assert not server.received("/elsewhere")


# -- the other calls ----------------------------------------------------------------------------------------------


async def test_models_have_size_and_date_and_capabilities_once_they_were_asked_for(provider: Ollama) -> None:
    [before] = await provider.models()
    await provider.context_tokens("tiny")
    [after] = await provider.models()

    assert (before.name, before.size_bytes) == ("tiny", 1000)
    assert before.modified_at == datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert before.capabilities == frozenset()
    assert after.capabilities == {"json", "tools", "images"}
    assert after.context_tokens == 8192


@pytest.mark.parametrize("body", [b"[]", b'{"models": 7}', b"<html>", b""])
async def test_answers_of_another_server_are_a_typed_error(server: OllamaServer, provider: Ollama, body: bytes) -> None:
    server.script("/api/tags", Reply([body]), Reply([body], 500))

    for _ in range(2):
        with pytest.raises(ProviderError):
            await provider.models()


async def test_embeddings_are_asked_whole_and_with_the_context_of_chats(server: OllamaServer, provider: Ollama) -> None:
    assert await provider.embed("tiny", ["a", "b"]) == [[1.0, 0.5], [1.0, 0.5]]

    [request] = server.received("/api/embed")
    assert request.json() == {
        "model": "tiny",
        "input": ["a", "b"],
        "truncate": False,
        "options": {"num_ctx": 4096},
    }
    server.script("/api/embed", json_reply({"error": "this model does not support embeddings"}, 500))
    with pytest.raises(UnsupportedFeature):
        await provider.embed("tiny", ["a"])


async def test_check_waits_a_second_at_most(server: OllamaServer, provider: Ollama) -> None:
    good = await provider.check()
    server.script("/api/version", Reply([], ending="hang"))
    silent = await provider.check()

    assert good.reachable
    assert good.detail == "Ollama 0.33.2"
    assert not silent.reachable
    assert "within 1 s" in silent.detail


@pytest.mark.parametrize("form", ["{port}", "0.0.0.0:{port}", "localhost:{port}", '"127.0.0.1:{port}/"'])
async def test_every_form_of_the_host_reaches_the_server(server: OllamaServer, form: str) -> None:
    port = server.origin.rpartition(":")[2]
    host = form.format(port=port) if ":" in form else f":{port}"
    async with opened(host) as provider:
        assert (await provider.check()).reachable


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104  # what people write into OLLAMA_HOST
        ("http://0.0.0.0:9", "http://127.0.0.1:9"),
        ("[::]:9", "http://[::1]:9"),
        ("lab.example", "http://lab.example:11434"),
        ("https://lab.example", "https://lab.example"),
    ],
)
async def test_host_is_read_as_the_package_reads_it(host: str, address: str) -> None:
    async with opened(host) as provider:
        assert provider._client.address == address


def test_host_that_is_no_address_names_the_setting() -> None:
    with pytest.raises(InvalidSettings, match="OLLAMA_HOST"):
        Ollama("ollama", "127.0.0.1:port", context_tokens=4096, timeout_seconds=5)
