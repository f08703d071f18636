"""Chat completions, asked for by the official client over a real server."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import DONE, delta, stream_reply, usage
from tests.openai.conftest import Upstream
from tests.server import ServerProcess

HELLO: list[Any] = [{"role": "user", "content": "one two three"}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def asked(upstream: Upstream) -> dict[str, Any]:
    body: dict[str, Any] = upstream.last_chat().json()
    return body


# -- whole answers ------------------------------------------------------------------------------------------------


def test_an_answer_has_the_full_name_of_the_model_and_the_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=HELLO)
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "echo/echo"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert answer._request_id


async def test_the_async_client_is_answered_alike(async_client: AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(model="echo/echo", messages=HELLO)
    assert answer.choices[0].message.content == "one two three"


def test_without_a_model_the_default_answers(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": HELLO})
    assert answer.json()["model"] == "echo/echo"


def test_a_plain_answer_has_no_field_that_says_nothing(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": HELLO}).json()
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    assert set(answer["choices"][0]["message"]) == {"role", "content", "refusal"}


def test_everything_a_prompt_may_hold_reaches_the_model(client: OpenAI, upstream: Upstream) -> None:
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Bonn"}'}}
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    client.chat.completions.create(
        model="fake/tiny",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "user", "name": "eva", "content": [{"type": "text", "text": "See"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
    )
    assert asked(upstream)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "user", "name": "eva", "content": [{"type": "text", "text": "See"}, image]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert asked(upstream)["model"] == "tiny"


def test_sampling_options_reach_the_model_and_what_is_ignored_is_named(client: OpenAI, upstream: Upstream) -> None:
    answer = client.chat.completions.create(
        model="fake/tiny",
        messages=HELLO,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop="END",
        max_tokens=9,
        max_completion_tokens=5,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        n=1,
        user="eva",
        store=True,
        metadata={"a": "b"},
        logprobs=False,
        parallel_tool_calls=True,
        logit_bias={"1": 2},
        reasoning_effort="low",
        extra_body={"temprature": 1},
    )
    sent = asked(upstream)
    names = ("temperature", "top_p", "seed", "stop", "max_tokens", "presence_penalty", "frequency_penalty")
    assert [sent[name] for name in names] == [0.5, 0.9, 7, ["END"], 5, 0.1, 0.2]
    warnings = " ".join((answer.model_extra or {})["warnings"])
    for name in ("logit_bias", "reasoning_effort", "temprature"):
        assert f"'{name}" in warnings
    for name in ("user", "store", "metadata", "logprobs", "parallel_tool_calls"):
        assert f"'{name}'" not in warnings


def test_stop_and_max_tokens_hold(client: OpenAI) -> None:
    stopped = client.chat.completions.create(model="echo", messages=HELLO, stop=[" two"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one", "stop")
    cut = client.chat.completions.create(model="echo", messages=HELLO, max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one two", "length")


def test_tools_pass_through_and_calls_come_back_whole(client: OpenAI, upstream: Upstream) -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    upstream.script(
        stream_reply(
            delta(role="assistant", tool_calls=[first]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"place":'}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '"Bonn"}'}}]),
            delta(tool_calls=[{**first, "index": 1, "id": "call_2"}]),
            delta("tool_calls"),
            usage(5, 4),
            DONE,
        )
    )
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(model="fake/tiny", messages=HELLO, tools=WEATHER, tool_choice=choice)
    assert asked(upstream)["tools"] == WEATHER
    assert asked(upstream)["tool_choice"] == choice
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    calls = answer.choices[0].message.tool_calls or []
    assert [call.id for call in calls] == ["call_1", "call_2"]
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"place":"Bonn"}')
    # A message that came back goes into the next prompt as it is.
    said: Any = answer.choices[0].message
    client.chat.completions.create(
        model="fake/tiny",
        messages=[*HELLO, said, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}],
    )
    assert asked(upstream)["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"place":"Bonn"}'


def test_thinking_is_kept_apart_from_the_answer(client: OpenAI, upstream: Upstream) -> None:
    counts = {"completion_tokens_details": {"reasoning_tokens": 3}, "prompt_tokens_details": {"cached_tokens": 2}}
    upstream.script(
        stream_reply(delta(reasoning_content="Hm."), delta(content="Yes."), delta("stop"), usage(4, 5, **counts), DONE)
    )
    answer = client.chat.completions.create(model="fake/tiny", messages=HELLO)
    assert answer.choices[0].message.content == "Yes."
    assert (answer.choices[0].message.model_extra or {})["reasoning_content"] == "Hm."
    assert answer.usage
    assert answer.usage.completion_tokens_details
    assert answer.usage.completion_tokens_details.reasoning_tokens == 3
    assert answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens == 2


def test_figures_that_the_service_does_not_tell_are_not_made_up(client: OpenAI, upstream: Upstream) -> None:
    upstream.script(stream_reply(delta(content="Yes."), delta("stop"), DONE))
    assert client.chat.completions.create(model="fake/tiny", messages=HELLO).usage is None
    with client.chat.completions.create(
        model="fake/tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        assert [chunk.usage for chunk in stream if chunk.usage] == []


# -- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_has_openais_form(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == "one two three"
    *said, end, counts = chunks
    assert [chunk.choices[0].finish_reason for chunk in said] == [None] * len(said)
    assert (end.choices[0].finish_reason, end.choices[0].delta.model_dump(exclude_unset=True)) == ("stop", {})
    assert [chunk.usage for chunk in (*said, end)] == [None] * (len(said) + 1)
    assert counts.choices == []
    assert counts.usage
    assert counts.usage.total_tokens == 6


def test_the_bytes_of_a_stream(server: ServerProcess) -> None:
    body = {"model": "echo", "messages": HELLO, "stream": True}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all("usage" not in chunk for chunk in chunks)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "one"},
        {"content": " two"},
        {"content": " three"},
        {},
    ]


async def test_the_async_client_streams(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model="echo", messages=HELLO, stream=True)
    async with stream:
        assert text_of([chunk async for chunk in stream]) == "one two three"


def test_tool_calls_and_thinking_stream(client: OpenAI, upstream: Upstream) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    upstream.script(
        stream_reply(delta(reasoning_content="Hm."), delta(tool_calls=[call]), delta("tool_calls"), usage(1, 1), DONE)
    )
    with client.chat.completions.stream(model="fake/tiny", messages=HELLO, tools=WEATHER) as stream:
        answer = stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert (calls[0].id, calls[0].function.name) == ("call_1", "weather")
    assert (answer.choices[0].message.model_extra or {})["reasoning_content"] == "Hm."
    assert not answer.choices[0].message.content


def test_a_failure_in_the_middle_is_an_error_and_no_end(
    client: OpenAI, server: ServerProcess, upstream: Upstream
) -> None:
    upstream.script(stream_reply(delta(content="Hel"), ending="cut"))
    with (
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        list(stream)
    assert caught.value.code == "provider_stream_broken"
    body = {"model": "fake/tiny", "messages": HELLO, "stream": True}
    events = httpx.post(f"{server.url}/v1/chat/completions", json=body).text.split("\n\n")
    assert events.pop() == ""
    assert json.loads(events.pop().removeprefix("data: "))["error"]["code"] == "provider_stream_broken"
    assert '"Hel"' in events.pop()
    assert "[DONE]" not in "".join(events)
    assert '"finish_reason":"' not in "".join(events)


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_the_nearest_is_named(client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean echo/echo") as caught:
        client.chat.completions.create(model="echo/ecco", messages=HELLO, stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_the_first_piece_has_its_own_status(client: OpenAI, upstream: Upstream, stream: bool) -> None:
    too_long = {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}}
    upstream.script(json_reply(too_long, status=400))
    with pytest.raises(openai.BadRequestError) as overflow:
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=stream)
    assert overflow.value.code == "context_length_exceeded"
    upstream.script(json_reply({"error": {"message": "slow down"}}, status=429, retry_after="7"))
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=stream)
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.InternalServerError) as down:
        client.chat.completions.create(model="down/any", messages=HELLO, stream=stream)
    assert (down.value.status_code, down.value.code) == (503, "provider_unavailable")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": WEATHER}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3, "logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"web_search_options": {"user_location": None}}, "web_search_options"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages.0.content",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ],
)
def test_what_a_model_cannot_do_is_refused(client: OpenAI, more: dict[str, Any], param: str) -> None:
    request: dict[str, Any] = {"model": "echo", "messages": HELLO, **more}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**request)
    assert (caught.value.code, caught.value.param) == ("unsupported_feature", param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"messages": []}',
        b'{"messages": "hi"}',
        b'{"messages": [{"role": "user", "content": "a\\u0000b"}]}',
        b'{"messages": [{"role": "user", "content": "a\\ud800b"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "half\\ud800": 1}',
        b'{"messages": [{"role": "king", "content": "a"}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "smell"}]}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1' + b"0" * 400 + b"}",
        b'{"messages": [{"role": "user", "content": "a"}], "seed": 1e400}',
        b'{"messages": [{"role": "user", "content": "a"}], "model": "' + b"a" * 256 + b'"}',
        b'{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "poem"}}',
        b'{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema"}}',
        b'{"messages": [{"role": "user", "content": "a"}], "tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f", '
        b'"parameters": ' + b'{"a": ' * 140 + b"1" + b"}" * 143,
    ],
)
def test_a_bad_body_is_a_400_in_openais_shape(server: ServerProcess, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"


# -- models and embeddings ----------------------------------------------------------------------------------------


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"echo/echo", "fake/tiny"} <= set(listed)
    assert listed["fake/tiny"].owned_by == "fake"
    assert listed["fake/tiny"].object == "model"
    assert (listed["fake/tiny"].model_extra or {})["stale"] is False
    assert client.models.retrieve("fake/tiny") == listed["fake/tiny"]
    assert client.models.retrieve("tiny").id == "fake/tiny"
    with pytest.raises(openai.NotFoundError, match="Did you mean fake/tiny"):
        client.models.retrieve("fake/tny")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("down/any")


def test_embeddings(client: OpenAI, server: ServerProcess, upstream: Upstream) -> None:
    made = client.embeddings.create(model="fake/tiny", input=["a", "b"])  # the client asks for base64 of its own accord
    assert [(row.index, row.embedding) for row in made.data] == [(0, [0.0, 0.5]), (1, [1.0, 0.5])]
    assert made.model == "fake/tiny"
    assert upstream.server.requests[-1].json() == {"model": "tiny", "input": ["a", "b"], "encoding_format": "float"}
    plain = client.embeddings.create(model="fake/tiny", input="a", encoding_format="float")
    assert plain.data[0].embedding == [0.0, 0.5]
    body = {"model": "fake/tiny", "input": "a", "encoding_format": "base64"}
    packed = httpx.post(f"{server.url}/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert base64.b64decode(packed) == bytes.fromhex("00000000 0000003f")


def test_embeddings_that_cannot_be_made(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as cannot:
        client.embeddings.create(model="echo", input="a")
    assert cannot.value.code == "unsupported_feature"
    with pytest.raises(openai.BadRequestError, match="token numbers"):
        client.embeddings.create(model="fake/tiny", input=[1, 2, 3])
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="fake/tiny", input="")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="fake/tiny", input=[])
    with pytest.raises(openai.BadRequestError) as shorter:
        client.embeddings.create(model="fake/tiny", input="a", dimensions=5)
    assert (shorter.value.code, shorter.value.param) == ("unsupported_feature", "dimensions")
