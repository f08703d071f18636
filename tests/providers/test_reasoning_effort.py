"""How hard a model is asked to think, in each service's words; and what is said where that cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ai_lab.errors import InvalidRequest, ProviderRefused
from ai_lab.providers.catalog import ADAPTERS
from ai_lab.providers.ollama import Ollama
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider
from tests.fakes import anthropic_server, google_server, openai_server
from tests.fakes.anthropic_server import MESSAGES, AnthropicServer
from tests.fakes.cohere_server import CohereServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.http_server import FakeServer, json_reply
from tests.fakes.ollama_server import OllamaServer
from tests.fakes.openai_server import CHAT, OpenAIServer

SERVERS: dict[str, type[FakeServer]] = {
    "anthropic": AnthropicServer,
    "cohere": CohereServer,
    "google": GoogleServer,
    "ollama": OllamaServer,
    "openai": OpenAIServer,
}
#: The fields of a body that say how to think.
FIELDS = ("thinking", "output_config", "generationConfig", "think", "reasoning_effort")
HI = [Message("user", "hi")]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
SHOWN = {"includeThoughts": True}


@asynccontextmanager
async def asked(service: str) -> AsyncIterator[tuple[FakeServer, Provider]]:
    async with SERVERS[service]() as server:
        made: Provider
        if service == "ollama":
            thinks = {"model_info": {}, "capabilities": ["completion", "thinking"]}
            server.script("/api/show", json_reply(thinks), json_reply(thinks), json_reply({"model_info": {}}))
            made = Ollama(service, server.origin, context_tokens=4096, timeout_seconds=5)
        else:
            made = ADAPTERS[service](service, f"{server.origin}/v1" if service == "openai" else server.origin)
        try:
            yield server, made
        finally:
            await made.close()


async def ask(provider: Provider, model: str, effort: str | None, **more: Any) -> list[Chunk]:
    options = {"reasoning_effort": effort, **more.pop("options", {})}
    request = ChatRequest(model, more.pop("messages", HI), options=options, **more)
    return [chunk async for chunk in provider.stream(request)]


def adaptive(effort: str) -> dict[str, Any]:
    return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}


def gemini(**config: Any) -> dict[str, Any]:
    return {"generationConfig": {"thinkingConfig": config}}


@pytest.mark.parametrize(
    ("service", "cases"),
    [
        (
            "anthropic",
            [
                ("claude-opus-9", "high", adaptive("high"), ""),
                ("claude-opus-4-6", "minimal", adaptive("low"), "set to 'low'"),
                ("claude-opus-9", "max", adaptive("high"), "set to 'high'"),
                ("claude-opus-9", "none", {"thinking": {"type": "disabled"}}, ""),
                ("claude-sonnet-4-5-20250929", "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, ""),
                ("claude-3-7-sonnet-latest", "max", {"thinking": {"type": "enabled", "budget_tokens": 23808}}, ""),
                ("claude-sonnet-4-20250514", "none", {}, ""),
                ("claude-3-5-haiku-latest", "high", {}, "ignored"),
                ("claude-3-5-haiku-latest", "none", {}, ""),
                ("claude-opus-9", None, {}, ""),
            ],
        ),
        (
            "google",
            [
                ("gemini-3-pro", "low", gemini(**SHOWN, thinkingLevel="LOW"), ""),
                ("gemini-3-pro", "xhigh", gemini(**SHOWN, thinkingLevel="HIGH"), "set to 'high'"),
                ("gemini-3-pro", "none", gemini(**SHOWN, thinkingLevel="MINIMAL"), "set to 'minimal'"),
                ("gemini-2.5-flash", "medium", gemini(**SHOWN, thinkingBudget=8192), ""),
                ("gemini-2.5-flash", "none", gemini(thinkingBudget=0), ""),
                ("gemini-2.5-pro", "none", gemini(**SHOWN, thinkingBudget=1024), "set to 'minimal'"),
                ("gemini-2.0-flash", "low", {}, "ignored"),
                ("gemini-2.0-flash", "none", {}, ""),
            ],
        ),
        (
            "cohere",
            [
                ("command-a-reasoning", "low", {"thinking": {"type": "enabled", "token_budget": 2048}}, ""),
                ("command-a-reasoning", "none", {"thinking": {"type": "disabled"}}, ""),
                ("command-a", "low", {}, "ignored"),
                ("command-a", "none", {}, ""),
            ],
        ),
        (
            "ollama",
            [
                ("qwen3", "low", {"think": True}, ""),
                ("qwen3", "none", {"think": False}, ""),
                ("gpt-oss:20b", "max", {"think": "high"}, "set to 'high'"),
                ("gpt-oss:20b", "low", {"think": "low"}, ""),
                ("llama3", "high", {}, "ignored"),
                ("llama3", "none", {}, ""),
            ],
        ),
        ("openai", [("o9", "xhigh", {"reasoning_effort": "xhigh"}, ""), ("o9", None, {}, "")]),
    ],
)
async def test_effort_has_each_services_words(
    service: str, cases: list[tuple[str, str | None, dict[str, Any], str]]
) -> None:
    async with asked(service) as (server, provider):
        for model, effort, expected, said in cases:
            warnings = (await ask(provider, model, effort))[-1].warnings
            body = server.requests[-1].json()
            assert {name: body[name] for name in FIELDS if name in body} == expected, (model, effort)
            assert len(warnings) == bool(said), (model, effort)
            assert all("'reasoning_effort'" in warning and said in warning for warning in warnings), (model, effort)
        if service != "openai":  # it knows best which words there are
            with pytest.raises(InvalidRequest, match="reasoning_effort"):
                await ask(provider, cases[0][0], "hard")


async def test_list_of_models_tells_how_they_think() -> None:
    def able(*efforts: str, **types: bool) -> dict[str, Any]:
        kinds = {kind: {"supported": is_so} for kind, is_so in types.items()}
        levels = {effort: {"supported": True} for effort in efforts}
        return {
            "thinking": {"supported": bool(types), "types": kinds},
            "effort": {"supported": bool(efforts), **levels},
        }

    listed = {
        "claude-a": able("low", "medium", "high", "xhigh", adaptive=True, enabled=True),
        "claude-b": able("low", adaptive=False, enabled=True),
        "claude-c": able(),
    }
    async with asked("anthropic") as (server, provider):
        data = [{"id": name, "max_tokens": 20_000, "capabilities": able} for name, able in listed.items()]
        server.script(anthropic_server.MODELS, json_reply({"data": data}))
        await provider.models()
        for model in listed:
            await ask(provider, model, "xhigh")
        first, second, third = (sent.json() for sent in server.received(MESSAGES))

    assert first["output_config"] == {"effort": "xhigh"}
    # The longest answer that it writes, 8,192 of it for what it says.
    assert (second["thinking"], second["max_tokens"]) == ({"type": "enabled", "budget_tokens": 11_808}, 20_000)
    assert "thinking" not in third


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "must call a tool"),
        ({"messages": [*HI, Message("assistant", "so")]}, "that it continues"),
        ({"options": {"max_tokens": 1024}}, "max_tokens"),
        (
            {"messages": [*HI, Message("assistant", "", tool_calls=[CALL]), Message("tool", "42", tool_call_id="a")]},
            "extra_content",
        ),
    ],
)
async def test_what_anthropic_does_not_take_with_thinking_is_asked_without(more: dict[str, Any], said: str) -> None:
    async with asked("anthropic") as (server, provider):
        chunks = await ask(provider, "claude-sonnet-4-5", "high", **more)

    assert "thinking" not in server.requests[-1].json()
    assert [said in warning for warning in chunks[-1].warnings] == [True]


async def test_anthropics_number_leaves_room_and_its_thoughts_go_back() -> None:
    call = CALL | {"extra_content": {"anthropic": {"thoughts": [THOUGHT]}}}
    calls = [
        *HI,
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "1", tool_call_id="a"),
        Message("assistant", "", tool_calls=[CALL | {"id": "b"}]),
        Message("tool", "2", tool_call_id="b"),
    ]
    async with asked("anthropic") as (server, provider):
        chunks = await ask(provider, "claude-sonnet-4-5", "high", options={"temperature": 0.5}, messages=calls)
        await ask(provider, "claude-sonnet-4-5", "high", options={"max_tokens": 4000})
        whole, short = (sent.json() for sent in server.requests)

    assert whole["messages"][1]["content"][0] == THOUGHT
    assert (whole["thinking"]["budget_tokens"], whole["max_tokens"]) == (16_384, 24_576)
    assert "temperature" not in whole
    assert chunks[-1].warnings == ("option 'temperature' was ignored: anthropic takes it only without thinking",)
    assert (short["thinking"]["budget_tokens"], short["max_tokens"]) == (2000, 4000)


async def test_format_and_effort_go_together() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "it", "schema": {"type": "object"}}}
    async with asked("anthropic") as (server, provider):
        await ask(provider, "claude-opus-9", "low", response_format=schema)

    assert server.requests[0].json()["output_config"].keys() == {"effort", "format"}


async def test_effort_that_a_model_refuses_is_left_out_from_then_on() -> None:
    refusal = anthropic_server.error_reply(
        400, "invalid_request_error", '"thinking.type.disabled" is not supported for this model.'
    )
    async with asked("anthropic") as (server, provider):
        server.script(MESSAGES, refusal, *[anthropic_server.text_reply("ok")] * 3, refusal)
        answers = [await ask(provider, "claude-fable-5", "none") for _ in range(2)]
        await ask(provider, "claude-fable-5", "low")
        assert ["thinking" in sent.json() for sent in server.requests] == [True, False, False, True]
        assert ["ignored" in answer[-1].warnings[0] for answer in answers] == [True, True]
        with pytest.raises(ProviderRefused):
            await ask(provider, "claude-fable-5", None)

    path = "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
    async with asked("google") as (server, provider):
        no = google_server.error_reply(400, "INVALID_ARGUMENT", "Thinking level MINIMAL is not supported here.")
        server.script(path, no, google_server.text_reply("ok"))
        [*_, last] = await ask(provider, "gemini-3.8-flash", "minimal")
        sent = [sent.json()["generationConfig"]["thinkingConfig"]["thinkingLevel"] for sent in server.requests]
        assert (sent, "set to 'low'" in last.warnings[0]) == (["MINIMAL", "LOW"], True)

        server.requests.clear()
        server.script(path.replace("3.8", "2.0"), no)  # nothing was said to it about thinking that could be left out
        with pytest.raises(ProviderRefused):
            await ask(provider, "gemini-2.0-flash", "high")
        assert len(server.requests) == 1

    async with asked("openai") as (server, provider):
        error = {"message": "No.", "param": "reasoning_effort", "code": "unsupported_value"}
        unknown = {"detail": [{"type": "extra_forbidden", "loc": ["body", "reasoning_effort"], "msg": "Not permitted"}]}
        ok = openai_server.text_reply("ok")
        server.script(CHAT, json_reply({"error": error}, 400), ok, ok, ok, json_reply(unknown, 422), ok)
        for effort in ("minimal", "minimal", "high", "low"):
            await ask(provider, "o9", effort)
        sent = [sent.json().get("reasoning_effort") for sent in server.requests]
        assert sent == ["minimal", None, None, "high", "low", None]
