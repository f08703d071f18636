"""The cache before the gateway's other steps: what is given again, what is not, and what a call says of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ai_lab.errors import ContextOverflow, DeadlineExceeded, ProviderError, StreamBroken
from ai_lab.gateway.call import Call
from ai_lab.providers import ChatRequest, ResolvedModel, Usage
from ai_lab.providers.openai_compatible import OpenAICompatible
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply, text_reply, usage
from tests.gateway.cached_calls import CachedCalls, cached_calls


@pytest.fixture
async def calls(tmp_path: Path, migrated_file: Path) -> AsyncIterator[CachedCalls]:
    shutil.copy(migrated_file, tmp_path / "ai_lab.sqlite")
    async with cached_calls(tmp_path / "ai_lab.sqlite") as calls:
        yield calls


async def test_the_second_time_nobody_is_asked(calls: CachedCalls) -> None:
    words = [f"word{number} " for number in range(50)]
    thinking = delta(reasoning_content="Let me think.")
    calls.fake.script(CHAT, stream_reply(thinking, *map(_text, words), delta("stop"), usage(7, 50), DONE))
    first, second = calls.call(), calls.call()
    fresh, stored = await calls.ask(first), await calls.ask(second)
    for field in ("text", "reasoning"):
        assert "".join(getattr(chunk, field) for chunk in fresh) == "".join(getattr(chunk, field) for chunk in stored)
    assert 10 < len(stored) < 50
    assert stored[-1].usage == fresh[-1].usage == Usage(7, 50)
    assert (first.cache, len(first.attempts)) == ("miss", 1)
    assert (second.cache, second.attempts, second.cost_nanousd) == ("hit", [], 0)
    assert second.cache_key == first.cache_key
    assert second.answered_by == calls.models[0]
    assert calls.upstream_calls == 1


def _text(text: str) -> bytes:
    return delta(content=text)


async def test_tool_calls_are_given_again(calls: CachedCalls) -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    calls.fake.script(CHAT, stream_reply(delta(tool_calls=[call]), delta("tool_calls"), DONE))
    await calls.ask(calls.call())
    shown, last = await calls.ask(calls.call())
    assert shown.tool_calls == [call]
    assert last.finish_reason == "tool_calls"
    assert calls.upstream_calls == 1


@pytest.mark.parametrize(
    "more", [{"use_cache": False}, {"options": {"temperature": 1}}, {"options": {"temperature": 0.31}}]
)
async def test_what_passes_the_cache_by(calls: CachedCalls, more: dict[str, Any]) -> None:
    for _ in range(2):
        call = calls.call(**more)
        await calls.ask(call)
        assert (call.cache, call.cache_key) == ("bypass", None)
    assert calls.upstream_calls == 2
    assert (await calls.cache.stats()).entries == 0


@pytest.mark.parametrize(
    "reply",
    [
        stream_reply(_text("cut"), delta("length"), DONE),
        stream_reply(_text("filtered"), delta("content_filter"), DONE),
        stream_reply(delta(reasoning_content="only thought"), delta("stop"), DONE),
        stream_reply(_text("broken"), ending="cut"),
        json_reply({"error": {"message": "no"}}, status=500),
    ],
)
async def test_what_is_not_stored(calls: CachedCalls, reply: Any) -> None:
    calls.fake.script(CHAT, reply)
    for _ in range(2):
        with contextlib.suppress(ProviderError):
            await calls.ask(calls.call())
    assert calls.upstream_calls == 2
    assert (await calls.cache.stats()).entries == 0


async def test_an_answer_of_another_model_is_stored_as_its_own(calls: CachedCalls) -> None:
    failed = json_reply({"error": {"message": "no"}}, status=503)
    calls.fake.script(CHAT, failed, text_reply("from the other"))
    call = calls.call(models=2)
    assert await calls.said(call) == "from the other"
    assert call.answered_by == calls.models[1]
    calls.fake.script(CHAT, text_reply("from the first"))
    again = calls.call(models=2)
    assert (await calls.said(again), again.cache) == ("from the first", "miss")
    calls.models.reverse()
    other = calls.call()
    assert (await calls.said(other), other.cache) == ("from the other", "hit")


async def test_a_prompt_too_long_for_the_first_model_is_the_doors_business(calls: CachedCalls) -> None:
    async def make_request(_model: ResolvedModel, _shrink: int) -> ChatRequest:
        raise ContextOverflow("Too long.")

    call = calls.call(make_request=make_request)
    with pytest.raises(ContextOverflow):
        await calls.ask(call)
    assert call.cache == "bypass"


async def test_embeddings_pass_it_by(calls: CachedCalls) -> None:
    for _ in range(2):
        call = calls.call(texts=("a", "b"))
        assert len((await calls.ask(call))[0].vectors or ()) == 2
        assert call.cache == "bypass"
    assert len(calls.fake.received("/v1/embeddings")) == 2


async def test_switched_off(tmp_path: Path, migrated_file: Path) -> None:
    shutil.copy(migrated_file, tmp_path / "ai_lab.sqlite")
    async with cached_calls(tmp_path / "ai_lab.sqlite", cache=False) as calls:
        made: list[Call] = [calls.call(), calls.call()]
        for call in made:
            await calls.ask(call)
        assert {call.cache for call in made} == {"off"}
        assert calls.upstream_calls == 2


async def test_a_server_elsewhere_under_the_same_name_is_another_one(calls: CachedCalls) -> None:
    await calls.ask(calls.call())
    async with OpenAIServer() as elsewhere:
        elsewhere.script(CHAT, text_reply("I am another."))
        moved = OpenAICompatible("fake", elsewhere.base_url)
        call = calls.call()
        call.route = replace(call.route, models=(replace(calls.models[0], provider=moved),))
        assert await calls.said(call) == "I am another."
        await moved.close()
    assert await calls.said(calls.call()) == "Hello, world"


async def test_a_request_that_is_never_made_ends_in_time(calls: CachedCalls) -> None:
    async def make_request(_model: ResolvedModel, _shrink: int) -> ChatRequest:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(calls.ask(calls.call(seconds=0.1, make_request=make_request)), 30)


@pytest.mark.parametrize("kind", ["content", "tool_calls"])
async def test_an_answer_without_end_is_broken_off(calls: CachedCalls, kind: str) -> None:
    much = "x" * 4_000_000
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": much}}
    piece = delta(content=much) if kind == "content" else delta(tool_calls=[call])
    calls.fake.script(CHAT, stream_reply(*[piece] * 7, ending="hang"))
    with pytest.raises(StreamBroken, match="did not stop"):
        await asyncio.wait_for(calls.ask(calls.call()), 60)
