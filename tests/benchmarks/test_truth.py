"""Our client's stamps, counts and states against what a calibrated server logs that it did.

Bounds on time are wide enough for a machine that has much else to do; ``scripts/measure_benchmark_accuracy.py`` has the
real ones.
"""

from __future__ import annotations

from statistics import mean, median, quantiles
from typing import Any, Literal

import pytest

from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Flavour
from tests.benchmarks.calibrated_truth import Pair, ask, ask_many, lower_quartile, opened

FLAVOURS: list[Flavour] = ["ollama", "openai", "llama-server"]
NS_PER_MS = 1_000_000
LATE_MS = 10.0


def check(pairs: list[Pair], *, count: int, chunks: int) -> None:
    """Hold every stamp against the written one."""
    assert len(pairs) == count
    for pair in pairs:
        seen, written = pair.seen, pair.written
        assert (seen.status, seen.error) == ("ok", None)
        assert len(seen.chunk_ns) == len(written.before_ns) == chunks
        # The order of things, on one clock: nothing is seen before it was written, or asked after it arrived.
        assert seen.dispatched_ns is None or seen.dispatched_ns <= (seen.sent_ns or 0)
        assert (seen.connected_ns or 0) <= (seen.sent_ns or 0) <= written.arrival_ns
        assert all(at >= before for at, before in zip(seen.chunk_ns, written.before_ns, strict=True))
        assert (seen.first_token_ns, seen.last_token_ns) == (seen.chunk_ns[0], seen.chunk_ns[-1])
        assert seen.last_token_ns is not None
        assert seen.end_ns is not None
        assert seen.last_token_ns <= seen.end_ns
    assert lower_quartile([pair.first_token_ms for pair in pairs]) < LATE_MS
    assert lower_quartile([pair.sent_ms for pair in pairs]) < LATE_MS
    lags = [
        (at - before) / NS_PER_MS
        for pair in pairs
        for at, before in zip(pair.seen.chunk_ns, pair.written.before_ns, strict=True)
    ]
    assert lower_quartile(lags) < LATE_MS


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_stamps_are_those_of_the_writes(server: CalibratedServer, flavour: Flavour, streams: int) -> None:
    server.configure(ttft_ms=30, gap_ms=8, gap_jitter_ms=4)
    async with opened(server, flavour) as target:
        pairs = await ask_many(server, target, streams=streams, requests=2 * streams, tokens=20)
    check(pairs, count=2 * streams, chunks=20)
    gaps = [pair.gaps_ms() for pair in pairs]
    assert lower_quartile([abs(mean(seen) - mean(written)) for seen, written in gaps]) < 2 * LATE_MS / 19


async def test_the_99th_percentile_of_gaps_is_that_of_the_gaps_written(server: CalibratedServer) -> None:
    """A mean per request, which some tools call by that name, is not near it."""
    server.configure(gap_ms=6, gap_sigma=1.0)
    async with opened(server, "ollama") as target:
        pairs = await ask_many(server, target, streams=8, requests=24, tokens=60)
    check(pairs, count=24, chunks=60)
    seen, written = ([gap for pair in pairs for gap in pair.gaps_ms()[side]] for side in (0, 1))
    true_p99 = quantiles(written, n=100)[98]
    late = [abs(ours - theirs) for ours, theirs in zip(seen, written, strict=True)]  # more on a busy machine
    assert abs(quantiles(seen, n=100)[98] - true_p99) < 0.15 * true_p99 + quantiles(late, n=100)[98]
    assert median(seen) == pytest.approx(median(written), abs=1.0 + median(late))
    assert quantiles([mean(pair.gaps_ms()[0]) for pair in pairs], n=100)[98] < true_p99 / 2


@pytest.mark.parametrize("flavour", ["ollama", "llama-server"])
async def test_decoding_is_as_fast_for_the_client_as_by_the_servers_own_clock(
    server: CalibratedServer, flavour: Flavour
) -> None:
    server.configure(gap_ms=10)
    async with opened(server, flavour) as target:
        pairs = await ask_many(server, target, streams=2, requests=6, tokens=30)
    check(pairs, count=6, chunks=30)
    ratios = [client / own for client, own in (pair.decode_tokens_per_second() for pair in pairs)]
    assert median(ratios) == pytest.approx(1, abs=0.02)  # N instead of N - 1 would be 1.034


@pytest.mark.parametrize("flavour", ["openai", "llama-server"])
@pytest.mark.parametrize("timed", [False, True])
async def test_chunks_of_several_tokens(server: CalibratedServer, flavour: Flavour, *, timed: bool) -> None:
    server.configure(first_chunk_tokens=4, chunk_tokens=8, gap_ms=4)
    options: dict[str, Any] = {}
    if timed:  # counts in each chunk, in the words of each server
        options = {"timings_per_token": True} | {
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}
        }
    async with opened(server, flavour) as target:
        record = await ask(target, tokens=37, options=options)
    [written] = server.log()
    assert written.tokens == [4, 8, 8, 8, 8, 1]
    assert (record.status, record.completion_tokens, record.token_source) == ("ok", 37, "server")
    assert len(record.chunk_ns) == 6
    if timed:
        assert record.chunk_tokens.tolist() == written.tokens
        client, own = Pair(record, written).decode_tokens_per_second()
        assert client == pytest.approx(own, rel=0.1)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_chunk_without_text_is_no_token(server: CalibratedServer, flavour: Flavour) -> None:
    server.configure(role_ms=1, ttft_ms=60)
    async with opened(server, flavour) as target:
        pairs = await ask_many(server, target, streams=1, requests=2, tokens=5)
    check(pairs, count=2, chunks=5)
    for pair in pairs:
        assert pair.seen.first_byte_ns is not None
        assert pair.seen.first_byte_ns < pair.written.before_ns[0] <= (pair.seen.first_token_ns or 0)
        assert pair.seen.headers_ns is not None
        assert pair.seen.headers_ns <= pair.seen.first_byte_ns


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_headers_alone_are_no_byte(server: CalibratedServer, flavour: Flavour) -> None:
    server.configure(sends_headers_early=True, ttft_ms=60)
    async with opened(server, flavour) as target:
        pairs = await ask_many(server, target, streams=1, requests=4, tokens=5)
    check(pairs, count=4, chunks=5)
    for pair in pairs:
        assert (pair.seen.headers_ns or 0) < pair.written.before_ns[0] <= (pair.seen.first_byte_ns or 0)


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
@pytest.mark.parametrize("flavour", ["ollama", "openai"])
async def test_the_first_answer_is_what_follows_the_reasoning(
    server: CalibratedServer, flavour: Flavour, endpoint: Literal["chat", "generate"]
) -> None:
    server.configure(reasoning_tokens=3, gap_ms=10)
    async with opened(server, flavour, endpoint) as target:
        pairs = await ask_many(server, target, streams=1, requests=4, tokens=8)
    check(pairs, count=4, chunks=8)
    reasons = flavour == "ollama" or endpoint == "chat"  # OpenAI's /completions has no word for it
    for pair in pairs:
        assert pair.seen.first_token_ns == pair.seen.chunk_ns[0]
        assert pair.seen.first_answer_ns == pair.seen.chunk_ns[3 if reasons else 0]
        assert pair.seen.completion_tokens == 8


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_server_without_usage_is_counted_by_chunks_and_that_is_said(
    server: CalibratedServer, flavour: Flavour
) -> None:
    server.configure(reports_usage=False)
    async with opened(server, flavour) as target:
        record = await ask(target, tokens=6)
    assert (record.status, record.completion_tokens) == ("ok", 6)
    # llama-server counts in its timings too.
    assert record.token_source == ("server" if flavour == "llama-server" else "chunks")
    assert ("no usage" in record.notes) == (flavour != "llama-server")


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_count_below_the_chunks_is_noted(server: CalibratedServer, flavour: Flavour) -> None:
    server.configure(counts_off_by=-3)
    async with opened(server, flavour) as target:
        record = await ask(target, tokens=8)
    assert record.completion_tokens == 5
    assert "usage disagrees with chunks" in record.notes


async def test_prompts_are_counted_with_their_template(server: CalibratedServer) -> None:
    for flavour in FLAVOURS:
        async with opened(server, flavour) as target:
            record = await ask(target, "one two three four")
            assert record.prompt_tokens == 8
            assert await target.prompt_tokens("five words are in here") == 9


async def test_what_ollama_had_in_its_cache_is_not_taken_for_speed(server: CalibratedServer) -> None:
    """Its count has the cached tokens and its duration has not, so that their ratio is no rate."""
    server.configure(ttft_ms=2, prefill_ms=2)
    prompt = " ".join(f"w{number}" for number in range(60))
    async with opened(server, "ollama") as target:
        cold, warm = await ask(target, prompt), await ask(target, prompt)
    assert [record.prompt_tokens for record in (cold, warm)] == [64, 64]
    assert [record.cached_tokens for record in (cold, warm)] == [None, None]  # not known is not nothing
    assert cold.server_ms["prompt_ms"] > 5 * warm.server_ms["prompt_ms"]
    server.configure(reports_cached=True)
    async with opened(server, "ollama") as target:
        assert (await ask(target, prompt)).cached_tokens == 63


@pytest.mark.parametrize("flavour", ["openai", "llama-server"])
async def test_cached_tokens_are_told_apart_where_the_server_says_them(
    server: CalibratedServer, flavour: Flavour
) -> None:
    server.configure(ttft_ms=2, prefill_ms=2)
    prompt = " ".join(f"w{number}" for number in range(60))
    async with opened(server, flavour) as target:
        records = [await ask(target, prompt) for _ in range(2)]
        records.append(await ask(target, prompt + " and more"))
    assert [record.prompt_tokens for record in records] == [64, 64, 66]
    assert [record.cached_tokens for record in records] == [0, 63, 60]
    assert [record.cached_tokens for record in records] == [entry.cached_tokens for entry in server.log()]


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_an_answer_that_ends_early_is_short(server: CalibratedServer, flavour: Flavour) -> None:
    server.configure(natural_tokens=3, honours_ignore_eos=False)
    async with opened(server, flavour) as target:
        forced, free = [await ask(target, tokens=9, force_output_length=force) for force in (True, False)]
        server.configure(honours_ignore_eos=True)
        honoured = await ask(target, tokens=9)
    assert (forced.status, forced.finish_reason, forced.completion_tokens) == ("short", "stop", 3)
    assert (free.status, free.completion_tokens) == ("ok", 3)
    assert honoured.status == ("short" if flavour == "ollama" else "ok")


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_one_token_is_an_answer(server: CalibratedServer, flavour: Flavour) -> None:
    async with opened(server, flavour) as target:
        record = await ask(target, tokens=1)
    assert (record.status, record.completion_tokens, len(record.chunk_ns)) == ("ok", 1, 1)
    assert record.first_token_ns == record.last_token_ns


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_half_a_character_does_no_harm(server: CalibratedServer, flavour: Flavour) -> None:
    server.configure(split_character="between")
    async with opened(server, flavour) as target:
        pairs = await ask_many(server, target, streams=1, requests=4, tokens=4)
        check(pairs, count=4, chunks=4)  # a chunk is there when it is complete
        assert {pair.seen.output_characters for pair in pairs} == {len("amber caf\u00e9 cedar caf\u00e9")}
        server.configure(split_character="end")
        cut = await ask(target, tokens=4)
    assert (cut.status, cut.completion_tokens) == ("ok", 4)
    assert cut.notes


async def test_an_eviction_shows_in_the_time_to_load(server: CalibratedServer) -> None:
    server.configure(load_ms=200)
    async with opened(server, "ollama") as target:
        warm = await ask(target)
        server.evict()
        assert (await target.describe())["is_loaded"] is False
        evicted = await ask(target)
        assert (await target.describe())["is_loaded"] is True
        digest = (await target.describe())["digest"]
        server.configure(digest="feed" * 16, version="10.0.0")
        later = await target.describe()
    assert warm.server_ms["load_ms"] < 1
    assert evicted.server_ms["load_ms"] == 200
    assert evicted.first_token_ns is not None
    assert evicted.sent_ns is not None
    assert (evicted.first_token_ns - evicted.sent_ns) / NS_PER_MS >= 220
    assert (later["digest"] != digest, later["version"]) == (True, "10.0.0")


async def test_a_cold_load_takes_as_long_as_it_takes(server: CalibratedServer) -> None:
    server.configure(load_ms=300)
    async with opened(server, "ollama") as target:
        seconds = await target.cold_load()
    assert seconds is not None
    assert 0.3 <= seconds < 0.5
    async with opened(server, "openai") as target:
        assert await target.cold_load() is None


async def test_the_server_is_found_on_this_machine(server: CalibratedServer) -> None:
    async with opened(server, "openai") as target:
        assert target.is_local
        assert target.process_ids() == [server.pid]
        assert (await target.describe())["model"] == MODEL
