"""What is refused, with OpenAI's statuses and codes."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT
from tests.openai.conftest import Upstream
from tests.openai.prompts import HELLO, WEATHER
from tests.server import ServerProcess


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_the_nearest_is_named(client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean echo/echo") as caught:
        client.chat.completions.create(model="echo/ecco", messages=HELLO, stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_the_first_piece_has_its_own_status(
    client: OpenAI, server: ServerProcess, upstream: Upstream, stream: bool
) -> None:
    too_long = {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}}
    upstream.script(json_reply(too_long, status=400))
    with pytest.raises(openai.BadRequestError) as overflow:
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=stream)
    assert overflow.value.code == "context_length_exceeded"
    upstream.script(json_reply({"error": {"message": "slow down"}}, status=429, retry_after="30"))
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=stream)
    assert limited.value.response.headers["retry-after"] == "30"
    with pytest.raises(openai.InternalServerError) as held:  # the service is left alone as long as it asked for
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=stream)
    assert (held.value.status_code, held.value.code) == (503, "breaker_open")
    assert httpx.delete(f"{server.url}/gateway/breakers/fake/tiny", timeout=60).status_code == 204
    with pytest.raises(openai.InternalServerError) as down:
        client.chat.completions.create(model="down/any", messages=HELLO, stream=stream)
    assert (down.value.status_code, down.value.code) == (503, "provider_unavailable")


def test_where_the_account_is_empty_nobody_asks_again(
    client: OpenAI, server: ServerProcess, upstream: Upstream
) -> None:
    upstream.script(json_reply({"error": {"message": "Insufficient credit"}}, status=402))
    insistent, told = client.with_options(max_retries=3), []
    for _ in range(2):  # the second time the service is left alone
        with pytest.raises(openai.APIStatusError, match=r"Insufficient credit.*top it up") as caught:
            insistent.chat.completions.create(model="fake/tiny", messages=HELLO)
        told.append(caught.value)
    assert [(error.status_code, error.code) for error in told] == [(402, "provider_quota_exceeded")] * 2
    assert [error.response.headers["x-ai-lab-attempts"] for error in told] == ["1", "0"]
    assert [error.request.headers["x-stainless-retry-count"] for error in told] == ["0", "0"]
    assert len(upstream.server.received(CHAT)) == 1
    [refused] = httpx.get(f"{server.url}/traces/{told[1].response.headers['x-ai-lab-trace-id']}", timeout=60).json()[
        "attempts"
    ]
    assert (refused["outcome"], refused["error_code"]) == ("refused", "provider_quota_exceeded")
    assert httpx.delete(f"{server.url}/gateway/breakers/fake/tiny", timeout=60).status_code == 204


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
        b'{"messages": [{"role": "user", "content": "a"}], "reasoning_effort": "hard"}',
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": "yes"}]}]}',
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
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=body, headers=headers, timeout=60)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"
