"""Traces in the database: written in the background, listed, found, and deleted in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import InvalidCursor, TraceNotFound
from ai_lab.settings import Settings
from ai_lab.traces import HostLoad, Traces
from ai_lab.traces.repository import Filters
from tests.traces.examples import BEGUN, example, examples


@asynccontextmanager
async def opened(url: str, *, most: int | None = None, **settings: Any) -> AsyncIterator[Traces]:
    database = Database(make_url(url))
    traces = Traces(Settings(**settings), database, most=most)
    try:
        yield traces
    finally:
        await traces.close()
        await database.close()


async def test_a_trace_is_found_at_once_and_whole(database_url: str) -> None:
    async with opened(database_url) as traces:
        made = example()
        traces.record(made)
        found = await traces.get(made.id)
        assert (found.id, found.trace_id, found.at, found.request_id) == (made.id, made.trace_id, BEGUN, "request-1")
        assert (found.asked, found.alias, found.provider, found.model) == ("fast", "fast", "two", "two/small")
        assert (found.status, found.cache, found.cache_key) == ("complete", "miss", "0" * 64)
        assert (found.first_token_ms, found.total_ms, found.cost) == (81.5, 121.5, 0.0000015)
        assert (found.prompt_tokens, found.completion_tokens) == (7, 3)
        assert found.usage == {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "cached_tokens": None,
            "reasoning_tokens": 1,
            "cache_write_tokens": None,
        }
        assert (found.options, found.warnings) == ({"temperature": 0.2}, list(made.warnings))
        assert found.host_load.start == HostLoad(12.5, 40.0, None, 1.0)
        assert found.host_load.end == HostLoad(80.0, 41.0, None, 0.5)
        first, second = found.attempts
        assert (first.kind, first.outcome, first.error_code, first.usage) == (
            "first",
            "failed",
            "provider_unavailable",
            None,
        )
        assert (second.kind, second.cost, second.price_source, second.electricity) == (
            "fallback",
            0.0000015,
            "settings",
            None,
        )
        assert (found.prompt, found.answer) == (None, None)


async def test_an_unknown_cost_is_null_and_no_zero(database_url: str) -> None:
    async with opened(database_url) as traces:
        made = example(cost_nanousd=None, usage=None, first_token_ms=None)
        traces.record(made)
        found = await traces.get(made.id)
        assert (found.cost, found.prompt_tokens, found.usage, found.first_token_ms) == (None, None, None, None)


async def test_a_w3c_trace_id_finds_its_newest_trace(database_url: str) -> None:
    async with opened(database_url) as traces:
        older, newer = examples(2, trace_id="ab" * 16)
        traces.record(newer)
        traces.record(older)
        assert (await traces.get("AB" * 16)).id == newer.id


async def test_texts_survive_that_a_database_could_not_keep(database_url: str) -> None:
    async with opened(database_url, trace_prompts=True) as traces:
        prompt = {"messages": [{"role": "user", "content": "NUL \x00 and \ud800"}], "is_whole": True}
        made = example(prompt=prompt, answer="NUL \x00 and \ud800, ö", error="bad \x00 byte", asked="m" * 600)
        traces.record(made)
        found = await traces.get(made.id)
        assert found.answer == "NUL \ufffd and \ufffd, ö"
        assert found.prompt
        assert found.prompt["messages"][0]["role"] == "user"
        assert found.asked == "m" * 512


async def test_pages_show_the_newest_first_and_none_twice(database_url: str) -> None:
    async with opened(database_url) as traces:
        made = [*examples(3), *examples(4)]  # two at each moment
        for trace in made:
            traces.record(trace)
        seen: list[str] = []
        after = None
        while True:
            page = await traces.page(limit=2, after=after)
            seen += [trace.id for trace in page.data]
            after = page.after
            assert page.has_more == (after is not None)
            if after is None:
                break
        assert seen == [trace.id for trace in sorted(made, key=lambda trace: (trace.at, trace.id), reverse=True)]
        assert page.kept_days == 30
        with pytest.raises(InvalidCursor):
            await traces.page(after="nonsense")


async def test_filters(database_url: str) -> None:
    async with opened(database_url) as traces:
        failed, cancelled, third = (
            example(BEGUN, status="failed", provider="one", model="tiny", asked="one/tiny"),
            example(BEGUN + timedelta(seconds=1), status="cancelled", session_id="bob"),
            example(BEGUN + timedelta(seconds=2), provider="hub", model="maker/large", asked=None),
        )
        for trace in (failed, cancelled, third):
            traces.record(trace)

        async def found(**wanted: Any) -> list[str]:
            return [trace.id for trace in (await traces.page(Filters(**wanted))).data]

        assert await found() == [third.id, cancelled.id, failed.id]
        assert await found(status="failed") == [failed.id]
        assert await found(session_id="bob") == [cancelled.id]
        assert await found(provider="hub") == [third.id]
        assert await found(model="one/tiny") == [failed.id]
        assert await found(model="tiny") == [failed.id]
        assert await found(model="fast") == [cancelled.id]  # as it was asked for
        assert await found(model="maker/large") == await found(model="hub/maker/large") == [third.id]
        assert await found(since=cancelled.at) == [third.id, cancelled.id]
        assert await found(since=cancelled.at, until=third.at) == [cancelled.id]
        assert await found(model="none") == []


async def test_what_is_too_old_goes_in_batches(database_url: str) -> None:
    async with opened(database_url, trace_days=1) as traces:
        old, young = now() - timedelta(days=1, minutes=1), now() - timedelta(hours=23)
        for _ in range(700):  # more than one batch
            traces.record(example(old))
        kept = example(young)
        traces.record(kept)
        await traces.page()
        assert await traces.purge() == 700
        assert [trace.id for trace in (await traces.page()).data] == [kept.id]


async def test_no_more_are_kept_than_there_is_room_for(database_url: str) -> None:
    async with opened(database_url, most=3, trace_days=3650) as traces:
        made = examples(8)
        for trace in made:
            traces.record(trace)
        await traces.page()
        assert await traces.purge() == 5
        assert [trace.id for trace in (await traces.page()).data] == [trace.id for trace in made[:4:-1]]


async def test_no_days_keep_no_traces_and_say_so(database_url: str) -> None:
    async with opened(database_url) as traces:
        traces.record(example())
    async with opened(database_url, trace_days=0) as traces:
        assert not traces.is_on
        made = example()
        traces.record(made)
        assert await traces.purge() == 1  # what was kept before
        page = await traces.page()
        assert (page.data, page.kept_days) == ([], 0)
        with pytest.raises(TraceNotFound, match="AI_LAB_TRACE_DAYS is 0"):
            await traces.get(made.id)


async def test_what_waits_is_written_at_the_end_and_never_twice(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = example()
    async with opened(database_url) as traces:
        traces.record(made)
    async with opened(database_url) as traces:
        assert (await traces.get(made.id)).id == made.id
        traces.record(made)  # the same once more, as after a write whose end was not heard of
        await asyncio.gather(traces.page(), traces.page())
        assert len((await traces.page()).data) == 1
    assert not caplog.records
