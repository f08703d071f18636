"""Requests that a model cannot tell apart have one cache key, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ai_lab.cache import CacheKey
from ai_lab.cache.canonical import cache_key_of
from ai_lab.providers import ChatRequest, Message
from tests.cache.answers import request

_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"n": {"minimum": 1}}}}}
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_TEXT = {"type": "text", "text": "What is this?"}
_MARK = {"cache_control": {"type": "ephemeral"}}


def key(asked: ChatRequest, provider: str = "fake", model: str = "tiny", **more: Any) -> CacheKey:
    cache_key = cache_key_of(provider, model, asked, most_temperature=0.3, **more)
    assert cache_key
    return cache_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"options": {"top_p": 1, "seed": None}}, {"options": {"top_p": 1.0}}),
        ({"options": {"stop": "end"}}, {"options": {"stop": ["end"]}}),
        ({"options": {"seed": 1, "top_k": 2}}, {"options": {"top_k": 2, "seed": 1}}),
        ({"options": {"stop": []}}, {"options": {}}),
        ({"tools": []}, {"tools": None}),
        ({"messages": [Message("user", [_TEXT])]}, {"messages": [Message("user", "What is this?")]}),
        ({"messages": [Message("user", [_TEXT | _MARK])]}, {"messages": [Message("user", "What is this?")]}),
        ({"messages": [Message("user", "x", tool_calls=[])]}, {"messages": [Message("user", "x")]}),
    ],
)
def test_the_same_request_said_in_two_ways(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(request(**one)) == key(request(**other))


_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "question": {"question": "What is a gateway"},
    "space": {"question": "What is a gateway? "},
    "system": {"messages": [Message("system", "Be short."), Message("user", "What is a gateway?")]},
    "other system": {"messages": [Message("system", "Be long."), Message("user", "What is a gateway?")]},
    "history": {"messages": [Message("user", "a"), Message("assistant", "b"), Message("user", "What is a gateway?")]},
    "role": {"messages": [Message("assistant", "What is a gateway?")]},
    "name": {"messages": [Message("user", "What is a gateway?", name="ann")]},
    "tool call id": {"messages": [Message("tool", "What is a gateway?", tool_call_id="1")]},
    "temperature": {"options": {"temperature": 0}},
    "other temperature": {"options": {"temperature": 0.1}},
    "seed": {"options": {"seed": 1}},
    "effort": {"options": {"reasoning_effort": "low"}},
    "other effort": {"options": {"reasoning_effort": "high"}},
    "no seed": {"options": {"seed": 0}},
    "tools": {"tools": [_TOOL]},
    "tool choice": {"tools": [_TOOL], "tool_choice": "none"},
    "format": {"response_format": {"type": "json_object"}},
    "image": {"messages": [Message("user", [_TEXT, _IMAGE])]},
    "other image": {
        "messages": [Message("user", [_TEXT, {**_IMAGE, "image_url": {"url": "data:image/png;base64,AAAB"}}])]
    },
    "finer image": {
        "messages": [Message("user", [_TEXT, {**_IMAGE, "image_url": {**_IMAGE["image_url"], "detail": "high"}}])]  # type: ignore[dict-item]
    },
    "two messages": {"messages": [Message("user", "What is"), Message("user", " a gateway?")]},
    "half a character": {"question": "\ud800"},
    "the same half as text": {"question": "\\ud800"},
}


def test_whatever_a_model_can_tell_apart_has_another_key() -> None:
    keys = {name: key(request(**more)).key for name, more in _VARIANTS.items()}
    keys |= {"model": key(request(), model="small").key, "provider": key(request(), provider="far").key}
    keys |= {address: key(request(), address=address).key for address in ("http://a.test/v1", "http://b.test/v1")}
    assert len(set(keys.values())) == len(keys)


def test_only_the_last_question_may_differ_within_a_scope() -> None:
    scopes = {name: key(request(**more)).scope for name, more in _VARIANTS.items()}
    same = {"plain", "question", "space", "half a character", "the same half as text"}
    assert {name for name, scope in scopes.items() if scope == scopes["plain"]} == same
    rest = [scope for name, scope in scopes.items() if name not in same]
    assert len(set(rest)) == len(rest)


def test_a_question_is_compared_only_where_text_is_all_there_is() -> None:
    assert key(request()).question == "What is a gateway?"
    for without in ("image", "tools", "role", "tool call id", "half a character"):
        assert key(request(**_VARIANTS[without])).question is None
    assert key(request("x" * 2001)).question is None
    assert key(request("\0")).question is None
    assert key(request(" \n")).question is None


@pytest.mark.parametrize(
    "never",
    [
        {"options": {"temperature": 0.31}},
        {"messages": []},
        {"messages": [Message("user", [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}])]},
        {"messages": [Message("user", [{"type": "input_audio"}])]},
        {"messages": [Message("user", "x" * 4_000_001)]},
    ],
)
def test_what_is_never_stored(never: dict[str, Any]) -> None:
    assert cache_key_of("fake", "tiny", request(**never), most_temperature=0.3) is None


def test_a_request_that_must_stay_here_has_the_same_key() -> None:
    assert key(request(), is_local_only=True) == replace(key(request()), is_local_only=True)
