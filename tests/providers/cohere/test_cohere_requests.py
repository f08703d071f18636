from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import InvalidRequest, UnsupportedFeature
from ai_lab.providers.cohere import Cohere
from ai_lab.providers.types import ChatRequest, Message
from tests.fakes.cohere_server import CohereServer
from tests.providers.cohere.asking import KEY, failure, sent

PIXEL = "data:image/png;base64,iVBORw0KGgo="
PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}}
LOOK = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": PARAMETERS}}
WAIT = {"type": "function", "function": {"name": "wait", "strict": True}}
CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}


async def test_body_and_headers_have_the_shape_of_the_api(server: CohereServer, provider: Cohere) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 4, "seed": 1, "max_tokens": 9, "stop": "END", "min_p": None}

    body, warnings = await sent(
        server,
        provider,
        Message("system", "Be brief."),
        Message("user", [{"type": "text", "text": "look "}, {"type": "text", "text": "there"}]),
        Message("assistant", "", tool_calls=[CALL]),
        Message("tool", "42", tool_call_id="a"),
        Message("assistant", ""),
        Message("user", "and?"),
        options=options,
        tools=[LOOK],
    )

    assert body == {
        "model": "command-tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "look there"},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": "42"},
            {"role": "user", "content": "and?"},
        ],
        "stream": True,
        "temperature": 0.5,
        "p": 0.9,
        "k": 4,
        "seed": 1,
        "max_tokens": 9,
        "stop_sequences": ["END"],
        "tools": [LOOK],
    }
    assert warnings == ()
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_options_out_of_range_are_set_to_the_nearest_and_said(server: CohereServer, provider: Cohere) -> None:
    options = {"top_p": 1, "presence_penalty": 0.5, "frequency_penalty": -1.5, "repeat_penalty": 1.1}

    body, warnings = await sent(server, provider, options=options)
    both, said = await sent(server, provider, options={"presence_penalty": 0.5, "frequency_penalty": 0.2})

    assert (body["p"], body["presence_penalty"], body["frequency_penalty"]) == (0.99, 0.5, 0)
    assert [name for name in options if any(f"'{name}'" in warning for warning in warnings)] == [
        "top_p",
        "frequency_penalty",
        "repeat_penalty",
    ]
    assert "presence_penalty" not in both
    assert "without 'frequency_penalty'" in said[0]


@pytest.mark.parametrize(
    ("choice", "names", "expected"),
    [
        (None, ["look", "wait"], None),
        ("auto", ["look", "wait"], None),
        ("required", ["look", "wait"], "REQUIRED"),
        ("none", ["look", "wait"], "NONE"),
        ({"type": "function", "function": {"name": "wait"}}, ["wait"], "REQUIRED"),
    ],
)
async def test_tool_choice(
    server: CohereServer, provider: Cohere, choice: Any, names: list[str], expected: str | None
) -> None:
    body, _ = await sent(server, provider, tools=[LOOK, WAIT], tool_choice=choice)

    assert [tool["function"]["name"] for tool in body["tools"]] == names
    assert body.get("tool_choice") == expected
    assert body["strict_tools"] is True


async def test_images_go_as_parts(server: CohereServer, provider: Cohere) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}

    body, _ = await sent(server, provider, Message("user", [{"type": "text", "text": "See:"}, image]))

    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "it", "schema": PARAMETERS}},
            {"type": "json_object", "json_schema": PARAMETERS},
        ),
    ],
)
async def test_format(
    server: CohereServer, provider: Cohere, asked: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    body, _ = await sent(server, provider, response_format=asked)

    assert body.get("response_format") == expected


@pytest.mark.parametrize(
    ("message", "more", "expected"),
    [
        (Message("user", [{"type": "input_audio"}]), {}, UnsupportedFeature),
        (Message("tool", "42"), {}, InvalidRequest),
        (Message("assistant", "", tool_calls=[{"id": "a"}]), {}, InvalidRequest),
        (Message("user", "hi"), {"tools": [{"type": "retrieval"}]}, UnsupportedFeature),
        (
            Message("user", "hi"),
            {"tools": [LOOK], "tool_choice": {"type": "function", "function": {"name": "go"}}},
            InvalidRequest,
        ),
        (Message("user", "hi"), {"response_format": {"type": "json_schema"}}, InvalidRequest),
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    server: CohereServer, provider: Cohere, message: Message, more: dict[str, Any], expected: type[Exception]
) -> None:
    error = await failure(provider, ChatRequest("command-tiny", [message], **more))

    assert type(error) is expected
    assert not server.requests
