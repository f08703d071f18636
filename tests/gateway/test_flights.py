"""Identical requests at the same time: one is sent, all are answered, and nobody depends on who came first."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from ai_lab.errors import DeadlineExceeded, LabError, ProviderUnavailable, ServerStopping
from ai_lab.gateway.call import Call
from ai_lab.providers import Chunk, Usage
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, DONE, delta, stream_reply, text_reply, usage
from tests.gateway.cached_calls import CachedCalls, cached_calls

_PAUSE = 0.08


@pytest.fixture
async def calls(tmp_path: Path, migrated_file: Path) -> AsyncIterator[CachedCalls]:
    shutil.copy(migrated_file, tmp_path / "ai_lab.sqlite")
    async with cached_calls(tmp_path / "ai_lab.sqlite") as calls:
        yield calls
        assert not calls.caching._flights._joinable
        assert not calls.caching._flights._running


def slowly(*texts: str) -> list[bytes | float]:
    parts: list[bytes | float] = []
    for text in texts:
        parts += [delta(content=text), _PAUSE]
    return parts


async def begun(calls: CachedCalls, call: Call) -> AsyncGenerator[Chunk, None]:
    """Return the stream after its first piece."""
    stream = calls.caching.stream(call)
    await anext(stream)
    return stream


async def test_twenty_at_once_are_one_upstream(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(*slowly("a", "b", "c"), delta("stop"), usage(7, 3), DONE))
    made = [calls.call() for _ in range(20)]
    answers = await asyncio.gather(*(calls.ask(call) for call in made))
    assert calls.upstream_calls == 1
    assert {"".join(chunk.text for chunk in answer) for answer in answers} == {"abc"}
    assert {answer[-1].usage for answer in answers} == {Usage(7, 3)}
    assert sorted(call.cache for call in made) == ["joined"] * 19 + ["miss"]
    assert sum(len(call.attempts) for call in made) == 1
    assert {call.answered_by for call in made} == {calls.models[0]}
    stats = await calls.cache.stats()
    assert (stats.joined, stats.saved_prompt_tokens, stats.entries) == (19, 19 * 7, 1)


async def test_who_comes_late_gets_what_was_missed(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(*slowly("a", "b", "c"), delta("stop"), DONE))
    async with aclosing(await begun(calls, calls.call())) as first:
        await anext(first)
        late = calls.call()
        async with aclosing(calls.caching.stream(late)) as second:
            pieces = [(await asyncio.wait_for(anext(second), 30)).text for _ in range(2)]
            assert pieces == ["a", "b"]
            assert late.cache == "joined"
            assert [chunk.text async for chunk in second] == ["c", ""]
        assert [chunk.text async for chunk in first] == ["c", ""]


async def test_the_first_client_leaves_and_the_others_stay(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(*slowly("a", "b", "c"), delta("stop"), DONE))
    first = asyncio.create_task(calls.ask(calls.call()))
    await calls.fake.next_request()
    second = await begun(calls, calls.call())
    first.cancel()
    assert [chunk.text async for chunk in second] == ["b", "c", ""]
    assert first.cancelled()
    assert not calls.fake.received(CHAT)[0].disconnected.is_set()
    assert (await calls.said(calls.call()), calls.upstream_calls) == ("abc", 1)  # and it was stored


@pytest.mark.parametrize("way", ["cancelled", "closed"])
async def test_when_all_have_left_the_service_is_let_go(calls: CachedCalls, way: str) -> None:
    calls.fake.script(CHAT, stream_reply(delta(content="a"), ending="hang"), text_reply("new"))
    made = [calls.call(), calls.call()]
    if way == "closed":
        streams = [await begun(calls, call) for call in made]
        for stream in streams:
            await stream.aclose()
    else:
        tasks = [asyncio.create_task(calls.ask(call)) for call in made]
        await calls.fake.next_request()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    # Written down before the last reader is gone.
    assert [attempt.outcome for call in made for attempt in call.attempts] == ["cancelled"]
    await asyncio.wait_for(calls.fake.received(CHAT)[0].disconnected.wait(), 30)
    assert await calls.said(calls.call()) == "new"


async def test_who_comes_as_the_last_one_leaves_gets_an_answer(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(delta(content="a"), ending="hang"), text_reply("new"))
    leaving = asyncio.create_task((await begun(calls, calls.call())).aclose())
    await asyncio.sleep(0)
    assert await calls.said(calls.call()) == "new"
    await leaving


async def test_a_failure_is_everybodys(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, replace(json_reply({"error": {"message": "overloaded"}}, 503), late_seconds=3 * _PAUSE))
    made = [calls.call() for _ in range(5)]
    failed = await asyncio.gather(*(calls.ask(call) for call in made), return_exceptions=True)
    assert calls.upstream_calls == 1
    assert {type(error) for error in failed} == {ProviderUnavailable}
    assert len({str(error) for error in failed}) == 1
    assert len({id(error) for error in failed}) == 5
    calls.fake.script(CHAT, text_reply("well again"))
    assert await calls.said(calls.call()) == "well again"


async def test_each_has_a_deadline_of_its_own(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(delta(content="a"), 4 * _PAUSE, delta("stop"), DONE))
    patient = asyncio.create_task(calls.said(calls.call()))
    await calls.fake.next_request()
    with pytest.raises(DeadlineExceeded):
        await calls.ask(calls.call(seconds=_PAUSE))
    assert await patient == "a"


async def test_who_comes_late_does_not_end_with_the_firsts_deadline(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(delta(content="a"), ending="hang"), text_reply("b"))
    first = asyncio.create_task(calls.ask(calls.call(seconds=3 * _PAUSE)))
    await calls.fake.next_request()
    late = calls.call()
    assert (await calls.said(late), late.cache) == ("b", "miss")
    with pytest.raises(DeadlineExceeded):
        await first


async def test_only_what_may_go_the_same_way_is_shared(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(*slowly("a"), delta("stop"), DONE))
    made = [calls.call(), calls.call(models=2), calls.call(local_only=True), calls.call("Another?")]
    await asyncio.gather(*(calls.ask(call) for call in made))
    assert [call.cache for call in made] == ["miss"] * 4


async def test_the_end_of_the_server_reaches_every_reader(calls: CachedCalls) -> None:
    calls.fake.script(CHAT, stream_reply(delta(content="a"), ending="hang"))
    reading = [asyncio.create_task(calls.ask(calls.call())) for _ in range(3)]
    await calls.fake.next_request()
    await calls.caching.close()
    assert {type(error) for error in await asyncio.gather(*reading, return_exceptions=True)} == {ServerStopping}
    with pytest.raises(ServerStopping):
        await calls.ask(calls.call("Another?"))


async def test_an_answer_too_long_to_store_is_let_go_piece_by_piece(calls: CachedCalls) -> None:
    piece = "x" * 60_000
    calls.fake.script(CHAT, stream_reply(*[delta(content=piece)] * 40, _PAUSE, delta("stop"), DONE))
    characters, most_kept, dropped = 0, 0, 0
    async with aclosing(calls.caching.stream(calls.call())) as chunks:
        async for chunk in chunks:
            characters += len(chunk.text)
            for flight in calls.caching._flights._running:
                dropped = flight._dropped
                most_kept = max(most_kept, sum(len(kept.text) for kept in flight._pieces))
    assert characters == 40 * len(piece)
    assert dropped
    assert most_kept < characters
    assert (await calls.cache.stats()).entries == 0


async def test_a_fault_of_our_own_is_raised_as_it_is(calls: CachedCalls) -> None:
    class Odd(Exception):
        pass

    class OddDoor:
        async def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
            if call.use_cache:
                raise Odd
            yield Chunk()

    calls.caching._door = OddDoor()
    made = await asyncio.gather(*(calls.ask(calls.call()) for _ in range(2)), return_exceptions=True)
    assert {type(error) for error in made} == {Odd}
    assert not any(isinstance(error, LabError) for error in made)
