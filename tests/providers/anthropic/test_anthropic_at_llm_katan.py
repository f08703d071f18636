"""The adapter against a fake of Anthropic's API that others wrote."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from ai_lab.errors import ProviderAuthFailed
from ai_lab.providers.anthropic import Anthropic
from ai_lab.providers.types import ChatRequest, Message
from tests.providers.llm_katan import KEYS, serving

ASKED = ChatRequest("claude-katan", [Message("system", "Be brief."), Message("user", "Grüße 😀")])
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def katan() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
async def provider(katan: str) -> AsyncIterator[Anthropic]:
    made = _provider(katan)
    yield made
    await made.close()


def _provider(address: str, key: str = KEYS["anthropic"]) -> Anthropic:
    async def read_key() -> str:
        return key

    return Anthropic("anthropic", address, api_key=read_key, timeout_seconds=60)


async def test_text_arrives_in_pieces_and_is_counted(provider: Anthropic) -> None:
    *pieces, final = [chunk async for chunk in provider.stream(ASKED)]

    assert "Grüße 😀" in "".join(chunk.text for chunk in pieces)
    assert sum(chunk.pieces for chunk in pieces) > 5
    assert final.finish_reason == "stop"
    assert final.usage
    assert final.usage.prompt_tokens
    assert final.usage.completion_tokens


async def test_tool_call_arrives_whole(provider: Anthropic) -> None:
    request = ChatRequest("claude-katan", ASKED.messages, tools=[TOOL], tool_choice="required")

    *pieces, final = [chunk async for chunk in provider.stream(request)]

    parts = [part for chunk in pieces for part in chunk.tool_calls or []]
    assert parts[0]["function"]["name"] == "look"
    assert parts[0]["id"]
    assert isinstance(json.loads("".join(part["function"]["arguments"] for part in parts)), dict)
    assert final.finish_reason == "tool_calls"


async def test_conversation_with_results_and_an_image_is_taken(provider: Anthropic) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [
        Message("user", [{"type": "text", "text": "what is it?"}, image]),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "a cat", tool_call_id="a"),
    ]

    chunks = [chunk async for chunk in provider.stream(ChatRequest("claude-katan", messages))]

    assert chunks[-1].finish_reason == "stop"


async def test_wrong_key_is_refused_and_not_repeated(katan: str) -> None:
    made = _provider(katan, "katan-wrong-key")

    with pytest.raises(ProviderAuthFailed) as caught:
        [chunk async for chunk in made.stream(ASKED)]
    await made.close()

    assert "katan-wrong-key" not in caught.value.detail
