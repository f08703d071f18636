from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime

import pytest

from ai_lab.errors import (
    ContextOverflow,
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
from ai_lab.providers.types import ChatRequest, Embeddings, Usage
from tests.fakes.http_server import Reply, json_reply
from tests.fakes.ollama_server import CHAT, OllamaServer, last, line, piece, stream_reply
from tests.providers.ollama.asking import ASKED, failure, opened

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


async def test_closing_early_disconnects(server: OllamaServer, provider: Ollama) -> None:
    server.script(CHAT, stream_reply(piece("first"), ending="hang"))
    stream = provider.stream(ASKED)
    assert (await anext(stream)).text == "first"

    await stream.aclose()

    [request] = server.received(CHAT)
    await asyncio.wait_for(request.disconnected.wait(), timeout=30)


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


async def test_key_is_sent_with_each_request_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, server: OllamaServer
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "CANARY-of-the-package")  # it would go to every address
    keys = [f"CANARY{number}.0123456789abcdef" for number in range(3)]
    left = [*keys]

    async def key() -> str:
        return left.pop(0)

    server.script(CHAT, json_reply({"error": f"invalid key {keys[2]}"}, 401))
    async with opened(server.base_url, api_key=key) as provider:
        await provider.check()
        await provider.models()
        error = await failure(provider)

    sent = {request.path: request.headers.get("authorization") for request in server.requests}
    assert sent == {
        "/api/version": None,
        "/api/tags": f"Bearer {keys[0]}",
        "/api/show": f"Bearer {keys[1]}",
        CHAT: f"Bearer {keys[2]}",
    }
    assert "invalid key" in error.detail
    assert "CANARY" not in error.detail


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
    assert await provider.embed("tiny", ["a", "b"]) == Embeddings([[1.0, 0.5], [1.0, 0.5]], Usage(prompt_tokens=6))

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
