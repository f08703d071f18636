from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import InvalidRequest, ProviderRefused, UnsupportedFeature
from ai_lab.providers.anthropic import Anthropic
from ai_lab.providers.types import ChatRequest, Message
from tests.fakes.anthropic_server import MESSAGES, MODELS, AnthropicServer, error_reply, text_reply
from tests.fakes.http_server import json_reply
from tests.providers.anthropic.asking import KEY, collect, failure, sent

PIXEL = "iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}


def called(call_id: str, name: str = "look", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


async def test_body_and_headers_have_the_shape_of_the_api(server: AnthropicServer, provider: Anthropic) -> None:
    body, warnings = await sent(
        server,
        provider,
        Message("system", "Be brief."),
        Message("user", "hi"),
        Message("assistant", "yes?"),
        Message("system", "Be kind."),
        Message("user", "bye"),
        options={"temperature": 0.5, "max_tokens": 9, "stop": "END", "top_k": 4, "seed": None},
    )

    assert body == {
        "model": "claude-tiny",
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "yes?"}]},
            {"role": "user", "content": [{"type": "text", "text": "bye"}]},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 4,
        "stop_sequences": ["END"],
        "stream": True,
    }
    assert warnings == ()
    headers = server.requests[-1].headers
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in headers
    assert KEY not in server.requests[-1].path


async def test_results_of_parallel_calls_are_one_turn_with_what_the_user_says_next(
    server: AnthropicServer, provider: Anthropic
) -> None:
    body, _ = await sent(
        server,
        provider,
        Message("user", "look twice"),
        Message("assistant", "", tool_calls=[called("call.1:a", arguments='{"at": "Ä"}'), called("b", arguments="")]),
        Message("tool", "42", tool_call_id="call.1:a"),
        Message("tool", "", tool_call_id="b"),
        Message("user", "and?"),
        tools=[TOOL],
    )

    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1_a", "name": "look", "input": {"at": "Ä"}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1_a", "content": [{"type": "text", "text": "42"}]},
                {"type": "tool_result", "tool_use_id": "b"},
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    assert body["tools"] == [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}}]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {"type": "auto"}),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "look"}}, {"type": "tool", "name": "look"}),
    ],
)
async def test_tool_choice(server: AnthropicServer, provider: Anthropic, choice: Any, expected: dict[str, str]) -> None:
    body, _ = await sent(server, provider, tools=[TOOL], tool_choice=choice)
    one_call = {"parallel_tool_calls": False}
    alone, warnings = await sent(server, provider, tools=[TOOL], tool_choice=choice, options=one_call)

    assert body["tool_choice"] == expected
    is_told = {} if expected["type"] == "none" else {"disable_parallel_tool_use": True}
    assert (alone["tool_choice"], warnings) == (expected | is_told, ())


async def test_instructions_alone_are_asked_as_a_question(server: AnthropicServer, provider: Anthropic) -> None:
    body, _ = await sent(server, provider, Message("system", "Say hi."))

    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Say hi."}]}]
    assert "system" not in body


async def test_marks_of_the_prompt_cache_stay_where_they_are(server: AnthropicServer, provider: Anthropic) -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "Long.", "cache_control": mark},
        {"type": "text", "text": "Short."},
    ]
    body, _ = await sent(server, provider, Message("system", parts), Message("system", "Kind."), Message("user", parts))

    assert body["system"] == [*parts, {"type": "text", "text": "Kind."}]
    assert body["messages"] == [{"role": "user", "content": parts}]


async def test_images_go_as_base64_or_as_an_address(server: AnthropicServer, provider: Anthropic) -> None:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PIXEL}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "text", "text": " "},
    ]

    body, _ = await sent(server, provider, Message("user", parts))

    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "See:"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PIXEL}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    ]


async def test_what_the_api_refuses_is_changed_and_said(server: AnthropicServer, provider: Anthropic) -> None:
    options = {"temperature": 1.5, "top_p": 0.9, "seed": 1, "presence_penalty": 1.0, "stop": ["\n", "END"]}

    body, warnings = await sent(
        server, provider, Message("user", "hi"), Message("user", " "), Message("assistant", "so: "), options=options
    )

    assert body["temperature"] == 1
    assert body["stop_sequences"] == ["END"]
    assert body["max_tokens"] == 8192
    assert not {"top_p", "seed", "presence_penalty", "stop"} & body.keys()
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "so:"}]},
    ]
    assert len(warnings) == 5
    assert {name for name in (*options, "max_tokens") if any(f"'{name}'" in warning for warning in warnings)} == {
        *options
    }


async def test_answer_is_no_longer_than_the_model_writes(server: AnthropicServer, provider: Anthropic) -> None:
    server.script(MODELS, json_reply({"data": [{"id": "claude-tiny", "max_tokens": 4096}]}))
    await provider.models()

    short, nothing_said = await sent(server, provider)
    lowered, said = await sent(server, provider, options={"max_tokens": 5000})

    assert (short["max_tokens"], nothing_said) == (4096, ())
    assert lowered["max_tokens"] == 4096
    assert "4096" in said[0]


async def test_model_that_chooses_its_own_sampling_is_asked_again_without_it_and_remembered(
    server: AnthropicServer, provider: Anthropic
) -> None:
    refusal = error_reply(400, "invalid_request_error", "`temperature` is deprecated for this model.")
    server.script(MESSAGES, refusal, text_reply("ok"), text_reply("ok"), refusal)
    request = ChatRequest("claude-new", [Message("user", "hi")], options={"temperature": 0.2, "max_tokens": 5})

    answers = [await collect(provider, request) for _ in range(2)]
    bodies = [received.json() for received in server.received(MESSAGES)]

    assert [body.get("temperature") for body in bodies] == [0.2, None, None]
    assert [answer[0].text for answer in answers] == ["ok", "ok"]
    assert all(
        answer[-1].warnings == ("option 'temperature' is not supported by anthropic's claude-new and was ignored",)
        for answer in answers
    )
    # A refusal that has nothing to do with what was given, or that comes again, is one.
    assert type(await failure(provider, request)) is ProviderRefused
    assert len(server.received(MESSAGES)) == 4


async def test_schema_is_sent_and_json_without_one_refused(server: AnthropicServer, provider: Anthropic) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    asked = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}

    body, _ = await sent(server, provider, response_format=asked)
    plain, _ = await sent(server, provider, response_format={"type": "text"})

    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "output_config" not in plain
    with pytest.raises(UnsupportedFeature, match="json_schema"):
        await sent(server, provider, response_format={"type": "json_object"})


@pytest.mark.parametrize(
    ("message", "more", "expected"),
    [
        (Message("user", [{"type": "input_audio"}]), {}, UnsupportedFeature),
        (Message("user", [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), {}, UnsupportedFeature),
        (Message("user", [{"type": "image_url", "image_url": "data:image/png;base64,?"}]), {}, InvalidRequest),
        (Message("tool", "42"), {}, InvalidRequest),
        (Message("assistant", "", tool_calls=[called("a", arguments="{")]), {}, InvalidRequest),
        (Message("assistant", "", tool_calls=[called("a", arguments="[1]")]), {}, InvalidRequest),
        (Message("user", "hi"), {"tools": [{"type": "web_search"}]}, UnsupportedFeature),
        (Message("user", "hi"), {"tools": [{"type": "function"}]}, InvalidRequest),
        (Message("user", "hi"), {"tools": [TOOL], "tool_choice": "perhaps"}, InvalidRequest),
        (Message("user", "hi"), {"response_format": {"type": "xml"}}, InvalidRequest),
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    server: AnthropicServer, provider: Anthropic, message: Message, more: dict[str, Any], expected: type[Exception]
) -> None:
    error = await failure(provider, ChatRequest("claude-tiny", [message], **more))

    assert type(error) is expected
    assert not server.requests
