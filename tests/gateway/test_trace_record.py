"""What of a call is kept: its texts within bounds, and no secret in any error."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.clock import monotonic_ms, new_id, now
from ai_lab.errors import ProviderAuthFailed
from ai_lab.gateway.call import Attempt, Call, Route
from ai_lab.gateway.texts import MOST_CHARACTERS, embedded_texts, prompt_of, request_of
from ai_lab.gateway.trace_record import Seen, trace_of
from ai_lab.providers import ChatRequest, Message, ResolvedModel
from ai_lab.providers.echo import Echo
from tests.security.canary import holds_secret, new_secret

MODEL = ResolvedModel(Echo(), "echo", is_local=True)
TOOLS = [{"type": "function", "function": {"name": "now"}}]


async def _no_request(model: ResolvedModel, shrink: int) -> ChatRequest:
    raise NotImplementedError


def _call(**fields: Any) -> Call:
    route = Route("echo/echo", None, (MODEL,))
    return Call(new_id(), route, _no_request, "openai", now(), monotonic_ms(), 0.0, **fields)


def test_a_key_that_a_service_has_put_into_its_error_is_not_kept() -> None:
    error = ProviderAuthFailed(f"Incorrect API key provided: {new_secret()}. Authorization: Bearer {new_secret()}")
    failed = Attempt(1, new_id(), "echo", "echo", True, 0.0, None, 5.0, "failed", error)
    trace = trace_of(_call(attempts=[failed]), Seen(None, error=error), None, keeps_texts=False)
    assert (trace.status, trace.error_code, trace.attempts[0].error_code) == ("failed", error.code, error.code)
    assert "Incorrect API key" in (trace.error or "")
    assert not holds_secret(repr(trace).encode())


def test_a_failure_that_is_no_error_of_ours_has_a_code_too() -> None:
    trace = trace_of(_call(), Seen(None), None, keeps_texts=True)
    assert (trace.status, trace.error_code, trace.error, trace.model) == ("failed", "internal_error", None, "echo")


def test_a_prompt_comes_back_whole() -> None:
    called: list[dict[str, Any]] = [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    messages = [
        Message("system", "Be short."),
        Message("user", [{"type": "text", "text": "When"}, {"type": "text", "text": "?"}], name="ada"),
        Message("assistant", "", tool_calls=called),
        Message("tool", "noon", tool_call_id="1"),
    ]
    request = ChatRequest("tiny", messages, {"temperature": 0.5}, TOOLS, "auto", {"type": "json_object"})
    prompt = prompt_of(request)
    assert prompt["is_whole"]
    assert request_of(prompt, "tiny", request.options) == request


def test_of_a_long_prompt_the_newest_is_kept() -> None:
    messages = [Message("user", sign * 40_000) for sign in "abcd"]
    prompt = prompt_of(ChatRequest("tiny", messages))
    assert not prompt["is_whole"]
    assert [message["content"][0] for message in prompt["messages"]] == ["c", "d"]
    alone = prompt_of(ChatRequest("tiny", [Message("user", "x" * 200_000)]))
    assert not alone["is_whole"]
    assert len(alone["messages"][0]["content"]) == MOST_CHARACTERS


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [Message("user", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])]},
        {"messages": [Message("user", "Hi")], "tools": [{"type": "function", "description": "x" * 150_000}]},
    ],
)
def test_images_and_huge_tools_are_left_out_and_it_says_so(more: dict[str, Any]) -> None:
    prompt = prompt_of(ChatRequest("tiny", **more))
    assert not prompt["is_whole"]
    assert len(str(prompt)) < 1000


def test_texts_to_embed_are_bounded_too() -> None:
    assert embedded_texts(["a", "b"]) == {"texts": ["a", "b"], "is_whole": True}
    assert embedded_texts(["a", "b" * 200_000]) == {"texts": ["a"], "is_whole": False}
