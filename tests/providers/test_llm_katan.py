"""OpenAI, Azure and Gemini against a fake of them that others wrote; Anthropic is beside its own tests.

That fake takes Gemini's key as Google Cloud does, in ``Authorization``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from ai_lab.errors import LabError, ProviderAuthFailed, ProviderError, ProviderRateLimited
from ai_lab.providers import ChatRequest, Chunk, Message, Provider
from ai_lab.providers.azure import Azure
from ai_lab.providers.google import Google
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.openai_options import OPENAI
from tests.providers.llm_katan import KEYS, serving

ASKED = [Message("system", "Be brief."), Message("user", "Grüße 😀 and a question of many words")]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


class AsGoogleCloud(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Authorization"] = f"Bearer {request.headers.pop('x-goog-api-key')}"
        return await super().handle_async_request(request)


def _openai(address: str, **more: Any) -> Provider:
    return OpenAICompatible("openai", f"{address}/v1", dialect=OPENAI, **more)


def _google(address: str, **more: Any) -> Provider:
    return Google("google", address, transport=AsGoogleCloud(), **more)


FORMATS: dict[str, Callable[..., Provider]] = {
    "openai": _openai,
    "azure_openai": partial(Azure, "azure"),
    "vertexai": _google,
}


@pytest.fixture(scope="module")
def katan() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def failing_katan() -> Iterator[str]:
    with serving("--rate-limit-after", "3", "--error-rate", "1") as address:
        yield address


@pytest.fixture(params=FORMATS)
def format_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def provider(katan: str, format_name: str) -> AsyncIterator[Provider]:
    made = _with_key(katan, format_name, KEYS[format_name])
    yield made
    await made.close()


def _with_key(address: str, format_name: str, key: str) -> Provider:
    async def read_key() -> str:
        return key

    return FORMATS[format_name](address, api_key=read_key, timeout_seconds=60)


async def collect(provider: Provider, messages: list[Message], **more: Any) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(ChatRequest("katan", messages, **more))]


async def failure(provider: Provider) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider, ASKED)
    return caught.value


async def test_text_arrives_in_pieces_and_is_counted(provider: Provider) -> None:
    *pieces, final = await collect(provider, ASKED)

    assert "Grüße 😀" in "".join(chunk.text for chunk in pieces)
    assert sum(chunk.pieces for chunk in pieces) > 5
    assert final.finish_reason == "stop"
    assert final.usage
    assert final.usage.prompt_tokens
    assert final.usage.completion_tokens


async def test_tool_call_arrives_whole(provider: Provider) -> None:
    *pieces, final = await collect(provider, ASKED, tools=[TOOL], tool_choice="auto")

    [call] = [part for chunk in pieces for part in chunk.tool_calls or []]
    assert call["function"]["name"] == "look"
    assert call["id"]
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert final.finish_reason == "tool_calls"


async def test_conversation_with_calls_results_and_an_image_is_taken(provider: Provider) -> None:
    messages = [
        Message("user", [{"type": "text", "text": "what is it?"}, IMAGE]),
        Message("assistant", "", tool_calls=[CALL]),
        Message("tool", "a cat", tool_call_id="call_1"),
    ]

    assert (await collect(provider, messages))[-1].finish_reason == "stop"


async def test_json_is_written_where_it_is_asked_for(provider: Provider) -> None:
    chunks = await collect(provider, ASKED, response_format={"type": "json_object"})

    assert isinstance(json.loads("".join(chunk.text for chunk in chunks)), dict)


async def test_wrong_key_is_refused_and_not_repeated(katan: str, format_name: str) -> None:
    made = _with_key(katan, format_name, "katan-wrong-key")
    error = await failure(made)
    await made.close()

    assert type(error) is ProviderAuthFailed
    assert "katan-wrong-key" not in error.detail


async def test_models_are_listed(katan: str) -> None:
    made = _with_key(katan, "openai", KEYS["openai"])

    assert [model.name for model in await made.models()] == ["katan"]
    assert (await made.check()).reachable
    await made.close()


async def test_its_failures_are_told_apart(failing_katan: str) -> None:
    made = [_with_key(failing_katan, name, KEYS[name]) for name in FORMATS]
    failures = [await failure(provider) for _ in range(2) for provider in made]
    for provider in made:
        await provider.close()

    assert [type(error) for error in failures] == [ProviderError] * 3 + [ProviderRateLimited] * 3
