"""Whole chat completions, asked for by the official client over a real server."""

from __future__ import annotations

from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI

from tests.fakes.openai_server import DONE, delta, stream_reply, usage
from tests.openai.conftest import Upstream
from tests.openai.prompts import HELLO, WEATHER
from tests.server import ServerProcess


def asked(upstream: Upstream) -> dict[str, Any]:
    body: dict[str, Any] = upstream.last_chat().json()
    return body


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
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": HELLO}, timeout=60)
    assert answer.json()["model"] == "echo/echo"


def test_a_plain_answer_has_no_field_that_says_nothing(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": HELLO}, timeout=60).json()
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
    assert sent["reasoning_effort"] == "low"
    for name in ("logit_bias", "temprature"):
        assert f"'{name}" in warnings
    for name in ("user", "store", "metadata", "logprobs", "parallel_tool_calls"):
        assert f"'{name}'" not in warnings


def test_one_tool_call_at_a_time_is_never_forgotten_in_silence(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "look"}}]
    for given, is_told in ((tools, True), (None, False)):  # without tools it says nothing
        more = {"tools": given} if given else {}
        answer = client.chat.completions.create(
            model="fake/tiny", messages=HELLO, extra_body={"parallel_tool_calls": False, **more}
        )
        assert ("'parallel_tool_calls'" in str((answer.model_extra or {}).get("warnings"))) is is_told


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


def test_marks_of_the_prompt_cache_change_nothing_for_a_service_that_does_not_know_them(
    client: OpenAI, upstream: Upstream
) -> None:
    parts: Any = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    for part in (parts, [parts[0] | {"cache_control": {"type": "ephemeral"}}, parts[1]]):
        client.chat.completions.create(model="fake/tiny", messages=[{"role": "user", "content": part}])
        assert asked(upstream)["messages"] == [{"role": "user", "content": "One.\nTwo."}]
