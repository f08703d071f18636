from __future__ import annotations

from typing import Any

import pytest

from ai_lab.errors import InvalidRequest, ProviderError, UnsupportedFeature
from ai_lab.providers.google import Google
from ai_lab.providers.types import ChatRequest, Embeddings, Message, ModelInfo, Usage
from tests.fakes.google_server import CHAT, EMBED, MODELS, GoogleServer, candidate, ended, stream_reply
from tests.fakes.http_server import json_reply
from tests.providers.google.asking import ASKED, collect, failure, key, sent

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}


# -- what is sent -------------------------------------------------------------------------------------------------


async def test_conversation_has_the_words_of_the_api(server: GoogleServer, provider: Google) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,iVBORw0KGgo="}}
    body, warnings = await sent(
        server,
        provider,
        Message("system", "Be brief."),
        Message("user", [{"type": "text", "text": "What is it?"}, image]),
        Message("assistant", ""),
        Message("assistant", "A cat."),
        Message("system", "And kind."),
        Message("user", "Sure?"),
        options={
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 4,
            "max_tokens": 9,
            "stop": ["x"],
            "seed": None,
            "min_p": 0.1,
        },
    )

    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief.\n\nAnd kind."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is it?"},
                    {"inlineData": {"mimeType": "image/jpeg", "data": "iVBORw0KGgo="}},
                ],
            },
            {"role": "model", "parts": [{"text": "A cat."}]},
            {"role": "user", "parts": [{"text": "Sure?"}]},
        ],
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 4,
            "maxOutputTokens": 9,
            "stopSequences": ["x"],
        },
    }
    assert warnings == ("option 'min_p' is not supported by google and was ignored",)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "look"}}, {"mode": "ANY", "allowedFunctionNames": ["look"]}),
    ],
)
async def test_tools_and_the_choice_among_them(
    server: GoogleServer, provider: Google, choice: Any, expected: dict[str, Any]
) -> None:
    body, _ = await sent(server, provider, tools=[TOOL], tool_choice=choice)

    declaration = {"name": "look", "description": "Looks.", "parametersJsonSchema": SCHEMA}
    assert body["tools"] == [{"functionDeclarations": [declaration]}]
    assert body["toolConfig"] == {"functionCallingConfig": expected}


async def test_calls_come_back_with_their_signatures_and_results_in_one_turn(
    server: GoogleServer, provider: Google
) -> None:
    signed = {"functionCall": {"name": "look", "args": {"at": "x"}}, "thoughtSignature": "c2ln"}
    server.script(CHAT, stream_reply(candidate(signed, {"functionCall": {"name": "look"}}), ended()))
    calls = next(chunk.tool_calls for chunk in await collect(provider) if chunk.tool_calls)

    body, _ = await sent(
        server,
        provider,
        Message("user", "Look."),
        Message("assistant", "", tool_calls=calls),
        Message("tool", '{"seen": 1}', tool_call_id=calls[0]["id"]),
        Message("tool", "a cat", tool_call_id=calls[1]["id"]),
    )

    assert body["contents"][1:] == [
        {"role": "model", "parts": [signed, {"functionCall": {"name": "look", "args": {}}}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "look", "response": {"seen": 1}}},
                {"functionResponse": {"name": "look", "response": {"result": "a cat"}}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("model", "signature"), [("gemini-2.5-flash", None), ("gemini-3-pro", "skip_thought_signature_validator")]
)
async def test_call_of_another_model_passes_without_a_signature(
    server: GoogleServer, provider: Google, model: str, signature: str | None
) -> None:
    body, _ = await sent(
        server,
        provider,
        Message("user", "Look."),
        Message("assistant", "", tool_calls=[CALL]),
        Message("tool", "a cat", tool_call_id="c1"),
        model=model,
    )

    [part] = body["contents"][1]["parts"]
    assert part["functionCall"] == {"id": "c1", "name": "look", "args": {"at": "x"}}
    assert part.get("thoughtSignature") == signature
    assert body["contents"][2]["parts"][0]["functionResponse"]["id"] == "c1"


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        ),
    ],
)
async def test_json_is_asked_for(
    server: GoogleServer, provider: Google, response_format: dict[str, Any], expected: dict[str, Any]
) -> None:
    body, _ = await sent(server, provider, response_format=response_format)

    assert body.get("generationConfig", {}) == expected


async def test_thoughts_are_asked_for_where_the_model_has_any(server: GoogleServer, provider: Google) -> None:
    shown = {"thinkingConfig": {"includeThoughts": True}}
    for model, expected in [
        ("gemini-2.5-flash", shown),
        ("gemini-3-pro", shown),
        ("gemini-2.5-flash-image", None),
        ("gemini-2.0-flash", None),
        ("gemini-tiny", None),
    ]:
        body, _ = await sent(server, provider, model=model)
        assert body.get("generationConfig") == expected

    entry = {"name": "models/gemini-2.5-flash", "supportedGenerationMethods": ["generateContent"], "thinking": False}
    server.script(MODELS, json_reply({"models": [entry]}))
    await provider.models()
    assert "generationConfig" not in (await sent(server, provider, model="gemini-2.5-flash"))[0]


async def test_instructions_alone_are_asked(server: GoogleServer, provider: Google) -> None:
    body, _ = await sent(server, provider, Message("system", "Say hi."))

    assert body == {"contents": [{"role": "user", "parts": [{"text": "Say hi."}]}]}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            Message("user", [{"type": "image_url", "image_url": {"url": "https://lab.example/cat.png"}}]),
            UnsupportedFeature,
        ),
        (Message("user", [{"type": "input_audio"}]), UnsupportedFeature),
        (Message("user", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%"}}]), InvalidRequest),
        (
            Message("assistant", "", tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{"}}]),
            InvalidRequest,
        ),
        (Message("tool", "a cat", tool_call_id="nobody's"), InvalidRequest),
    ],
)
async def test_what_cannot_be_said_is_refused_unsent(
    server: GoogleServer, provider: Google, message: Message, expected: type[Exception]
) -> None:
    assert type(await failure(provider, ChatRequest("gemini-tiny", [message]))) is expected
    assert not server.requests


async def test_name_of_a_model_stays_one_part_of_the_address(server: GoogleServer, provider: Google) -> None:
    await collect(provider, ChatRequest("tunedModels/my own", ASKED.messages))
    await collect(provider, ChatRequest("../x?key=1", ASKED.messages))

    assert [request.path.partition(":")[0] for request in server.requests] == [
        "/v1beta/tunedModels/my%20own",
        "/v1beta/models/..%2Fx%3Fkey%3D1",
    ]


@pytest.mark.parametrize("ending", ["", "/", "/v1beta", "/v1beta/", "/v1"])
async def test_version_in_the_address_is_not_doubled(server: GoogleServer, ending: str) -> None:
    made = Google("google", server.origin + ending, api_key=key)
    await collect(made)
    await made.close()

    assert server.requests[0].path == CHAT


# -- the other calls ----------------------------------------------------------------------------------------------


async def test_models_of_all_pages_that_chat_or_embed(server: GoogleServer, provider: Google) -> None:
    chat = {"supportedGenerationMethods": ["generateContent"], "inputTokenLimit": 1048576}
    first = [
        {"name": "models/gemini-a", **chat, "thinking": True},
        {"name": "models/veo", "supportedGenerationMethods": ["predictLongRunning"]},
        {"nonsense": True},
    ]
    second = [{"name": "models/vectors", "supportedGenerationMethods": ["embedContent"], "inputTokenLimit": 2048}]
    server.script(MODELS, json_reply({"models": first, "nextPageToken": "a+b"}))
    server.script(f"{MODELS}&pageToken=a%2Bb", json_reply({"models": second}))

    assert await provider.models() == [
        ModelInfo("gemini-a", 1048576, capabilities=frozenset({"json", "thinking"})),
        ModelInfo("vectors", 2048, capabilities=frozenset({"embeddings"})),
    ]
    assert await provider.context_tokens("gemini-a") == 1048576
    assert [await provider.context_tokens("gemini-new") for _ in range(2)] == [None, None]
    assert len(server.requests) == 4
    assert await provider.count_tokens("gemini-a", ASKED.messages) is None


async def test_embeddings_are_made_in_batches_and_counted(server: GoogleServer, provider: Google) -> None:
    assert await provider.embed("gemini-tiny", ["a", "bb"]) == Embeddings(
        [[1.0, 0.5], [2.0, 0.5]], Usage(prompt_tokens=4)
    )
    made = await provider.embed("gemini-tiny", ["x"] * 250)

    assert (len(made.vectors), made.usage) == (250, Usage(prompt_tokens=500))
    assert [len(request.json()["requests"]) for request in server.requests] == [2, 100, 100, 50]
    assert server.requests[0].json()["requests"][0]["model"] == "models/gemini-tiny"

    server.script(EMBED, json_reply({"embeddings": [{"values": [1]}]}), json_reply({"embeddings": []}), json_reply([]))
    assert await provider.embed("gemini-tiny", ["a"]) == Embeddings([[1.0]])
    with pytest.raises(ProviderError, match="0 embeddings for 1 texts"):
        await provider.embed("gemini-tiny", ["a"])
    with pytest.raises(ProviderError, match="shape"):
        await provider.embed("gemini-tiny", ["a"])


async def test_check_spends_nothing(server: GoogleServer, provider: Google) -> None:
    one = "/v1beta/models?pageSize=1"
    server.script(one, json_reply({"models": []}), json_reply({}, 401))

    checks = [await provider.check() for _ in range(2)]

    assert [check.reachable for check in checks] == [True, False]
    assert {request.path for request in server.requests} == {one}
