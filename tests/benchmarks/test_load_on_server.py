"""What the load generator says it sent, held against the log of a server in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy

from ai_lab.benchmarks.load.lengths import calibrate
from ai_lab.benchmarks.load.loops import LoadGenerator
from ai_lab.benchmarks.load.prompts import PromptSource
from ai_lab.benchmarks.load.schedule import blocks
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets import Address, Target, open_target
from ai_lab.settings import Settings
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Logged

MS = 1_000_000  # nanoseconds


@pytest.fixture(scope="module")
def running() -> Iterator[CalibratedServer]:
    with CalibratedServer(flavour="openai", gap_ms=1, ttft_ms=2) as server:
        yield server


@pytest.fixture
def server(running: CalibratedServer) -> CalibratedServer:
    running.configure(slots=0, ttft_ms=2)
    return running


@asynccontextmanager
async def opened(server: CalibratedServer, plan: Plan) -> AsyncIterator[Target]:
    address = Address(protocol="openai", model=MODEL, base_url=server.url)
    target = await open_target(address, plan.arms[0], timeout_seconds=20, settings=Settings(_env_file=None))
    try:
        yield target
    finally:
        await target.close()


async def measured(
    server: CalibratedServer, load: dict[str, Any], run_id: str, **prompts: Any
) -> tuple[PromptSource, list[tuple[Record, Logged]]]:
    """Run all blocks; return each request as we saw it, in the order of their indices, with what the server logged."""
    arm = {"model": MODEL, "url": server.url, "protocol": "openai"}
    plan = Plan.model_validate({"arms": [arm], "load": load, "prompts": prompts, "output_tokens": 4, "warmup": 2})
    records: list[Record] = []
    source = PromptSource(plan, run_id)
    generator = LoadGenerator(plan, source, records.append)
    async with opened(server, plan) as target:
        source.length = await calibrate(plan, source, {"arm": target})
        await generator.warm_up(0, target)
        server.clear()
        for block in blocks(plan):
            await generator.run_block(block, target)
    ours = sorted((record for record in records if record.phase == "measured"), key=lambda record: record.index)
    logged = server.log()
    assert {record.status for record in ours} == {"ok"}
    assert len(logged) == len(ours) == load["requests"]
    if prompts.get("mode") == "repeat":
        return source, list(zip(ours, logged, strict=True))
    by_prompt = {entry.prompt_sha256: entry for entry in logged}
    return source, [(record, by_prompt[record.prompt_sha256]) for record in ours]


async def test_unique_prompts_never_hit_the_cache_and_have_their_length(server: CalibratedServer) -> None:
    load = {"mode": "closed", "requests": 60, "concurrency": [4]}
    for run_id in ("first", "again"):  # the same seed: the bodies have all been seen
        source, pairs = await measured(server, load, run_id, tokens=200)
        assert {entry.cached_tokens for _, entry in pairs} == {0}
        assert {entry.prompt_tokens for _, entry in pairs} == {source.length.achieved_tokens["arm"]} == {200}


async def test_a_shared_beginning_is_in_the_cache_and_no_more_than_it(server: CalibratedServer) -> None:
    load = {"mode": "closed", "requests": 20}
    source, pairs = await measured(server, load, "shared", mode="shared_prefix", tokens=200, shared_tokens=100)
    assert {entry.cached_tokens for _, entry in pairs} == {source.length.shared_words + 1}  # and the run's number
    assert source.length.shared_words == pytest.approx(100, abs=2)
    _, pairs = await measured(server, load, "other", mode="shared_prefix", tokens=200, shared_tokens=100)
    assert {entry.cached_tokens for _, entry in pairs} == {source.length.shared_words + 1}


async def test_a_repeated_prompt_is_in_the_cache_but_for_its_last_token(server: CalibratedServer) -> None:
    _, pairs = await measured(server, {"mode": "closed", "requests": 10}, "repeat", mode="repeat", tokens=200)
    assert {entry.prompt_tokens - entry.cached_tokens for _, entry in pairs} == {1}
    assert len({record.prompt_sha256 for record, _ in pairs}) == 1


async def test_poisson_arrivals_are_poisson_where_they_arrive(server: CalibratedServer) -> None:
    load = {"mode": "open", "requests": 150, "rates": [60.0], "arrivals": "poisson"}
    _, pairs = await measured(server, load, "poisson")
    arrivals = np.array([entry.arrival_ns for _, entry in pairs])
    intended = np.array([record.intended_ns for record, _ in pairs], dtype=np.int64)
    assert np.all(arrivals >= intended)
    assert np.quantile(arrivals - intended, 0.25) < 20 * MS  # a busy machine sends some later, several of them at once
    gaps = np.diff(intended) / 1e9
    assert scipy.stats.kstest(gaps, scipy.stats.expon(scale=1 / 60).cdf).pvalue > 1e-4


async def test_a_queue_grows_as_it_must(server: CalibratedServer) -> None:
    """D/D/1: S is 23 ms, arrivals come each 10 ms, and the k-th waits k (S - 1 / rate) = 13 k ms from its time on."""
    server.configure(slots=1, ttft_ms=20)
    _, pairs = await measured(server, {"mode": "open", "requests": 30, "rates": [100.0], "arrivals": "constant"}, "dd1")
    first_ns = pairs[0][0].intended_ns or 0
    assert [record.intended_ns for record, _ in pairs] == pytest.approx(
        [first_ns + k * 10 * MS for k in range(30)], abs=1000
    )
    # In the order of serving: requests that a busy machine sends together may overtake each other on their way.
    for k, (record, entry) in enumerate(sorted(pairs, key=lambda pair: pair[1].start_ns)):
        assert entry.start_ns - first_ns >= k * 23 * MS  # longer on a busy machine, and never less
        assert (record.first_token_ns or 0) - entry.start_ns >= 20 * MS
    asked_meanwhile = sum(later.arrival_ns < (entry.ended_ns or 0) for (_, entry), (_, later) in pairwise(pairs))
    assert asked_meanwhile > len(pairs) / 2  # nobody waited for an answer before he asked
