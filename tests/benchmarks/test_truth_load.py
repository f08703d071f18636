"""What the load generator sends, as a calibrated server saw it come."""

from __future__ import annotations

import heapq
import time
from typing import Literal

import pytest

from ai_lab.benchmarks.load.arrivals import offsets
from ai_lab.benchmarks.load.lengths import calibrate
from ai_lab.benchmarks.load.loops import LoadGenerator
from ai_lab.benchmarks.load.prompts import PromptSource
from ai_lab.benchmarks.load.schedule import blocks
from ai_lab.benchmarks.plan import Arm, Iterations, Load, OpenLoop, Plan, Prompts
from ai_lab.benchmarks.records import Record
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Flavour, Logged
from tests.benchmarks.calibrated_truth import lower_quartile, opened, paired

NS_PER_MS = 1_000_000
LATE_MS = 10.0


async def run(
    server: CalibratedServer, load: Load, *, flavour: Flavour = "llama-server", prompts: Prompts | None = None
) -> tuple[list[Record], list[Logged], list[Logged]]:
    """Run a plan's blocks; return the measured records, the server's log of them, and that of what came before."""
    arm = Arm(model=MODEL, url=server.url)
    plan = Plan(arms=[arm], load=load, prompts=prompts or Prompts(tokens=64), output_tokens=4, warmup=2)
    records: list[Record] = []
    source = PromptSource(plan, f"truth-{time.time_ns()}")
    async with opened(server, flavour) as target:
        source.length = await calibrate(plan, source, {"arm": target})
        generator = LoadGenerator(plan, source, records.append)
        await generator.warm_up(0, target)
        before = server.log()
        server.clear()
        for block in blocks(plan):
            await generator.run_block(block, target)
    measured = [record for record in records if record.phase == "measured"]
    assert {record.status for record in measured} == {"ok"}
    return sorted(measured, key=lambda record: record.index), server.log(), before


async def test_a_queue_grows_as_arithmetic_says(server: CalibratedServer) -> None:
    """D/D/1 at twice what it can serve: request k waits k x (service - interval), none more for those that wait."""
    server.configure(slots=1, ttft_ms=25, gap_ms=5)
    service_ms, interval_ms = 25 + 3 * 5, 20
    records, log, _ = await run(server, OpenLoop(requests=20, rates=[1000 / interval_ms], arrivals="constant"))
    zero_ns = log[0].start_ns
    assert [(entry.start_ns - zero_ns) / NS_PER_MS for entry in log] == pytest.approx(
        [at * service_ms for at in range(20)], abs=1
    )
    intended = [record.intended_ns or 0 for record in records]
    assert [(at - intended[0]) / NS_PER_MS for at in intended] == pytest.approx(
        [at * interval_ms for at in range(20)], abs=0.001
    )
    waits = [((record.first_token_ns or 0) - (record.intended_ns or 0)) / NS_PER_MS for record in records]
    errors = [wait - (25 + at * (service_ms - interval_ms)) for at, wait in enumerate(waits)]
    assert -0.1 <= lower_quartile(errors) < LATE_MS + 5  # what the first one was late moves all that queue behind it
    sent = [((record.sent_ns or 0) - (record.intended_ns or 0)) / NS_PER_MS for record in records]
    assert lower_quartile(sent) < LATE_MS  # nobody waited for the server before he asked


@pytest.mark.parametrize("arrivals", ["constant", "poisson", "gamma"])
async def test_requests_come_when_the_schedule_says(
    server: CalibratedServer, arrivals: Literal["constant", "poisson", "gamma"]
) -> None:
    server.configure(ttft_ms=50, gap_ms=2)
    load = OpenLoop(requests=40, rates=[40], arrivals=arrivals, burstiness=0.5)
    records, log, _ = await run(server, load, flavour="openai")
    drawn = offsets(Plan(load=load), blocks(Plan(load=load))[0])
    zero_ns = (records[0].intended_ns or 0) - round(float(drawn[0]) * 1e9)
    for record, seconds in zip(records, drawn.tolist(), strict=True):
        assert record.intended_ns == pytest.approx(zero_ns + seconds * 1e9, abs=1000)
    pairs = paired(records, log)
    late_ms = [(pair.written.arrival_ns - (pair.seen.intended_ns or 0)) / NS_PER_MS for pair in pairs]
    assert min(late_ms) >= 0
    assert lower_quartile(late_ms) < LATE_MS


async def test_a_closed_loop_has_as_many_under_way_as_it_says(server: CalibratedServer) -> None:
    server.configure(ttft_ms=20, gap_ms=5)
    _, log, _ = await run(server, Iterations(requests=24, concurrency=[4]), flavour="openai")
    assert len(log) == 24
    ends: list[int] = []
    most = 0
    for entry in log:
        while ends and ends[0] <= entry.arrival_ns:
            heapq.heappop(ends)
        heapq.heappush(ends, entry.before_ns[-1])
        most = max(most, len(ends))
    assert most == 4
    busy_ns = sum(entry.before_ns[-1] - entry.arrival_ns for entry in log)
    assert busy_ns / (log[-1].before_ns[-1] - log[0].arrival_ns) > 1.5  # in the mean


async def test_unique_prompts_never_meet_a_cache(server: CalibratedServer) -> None:
    server.configure(ttft_ms=1, gap_ms=0.2)
    records, log, before = await run(server, Iterations(requests=60, concurrency=[4]))
    assert [entry.cached_tokens for entry in [*before, *log]] == [0] * (len(before) + 60)
    assert {record.cached_tokens for record in records} == {0}
    assert {record.prompt_tokens for record in records} <= {63, 64, 65}


async def test_the_same_body_after_another_run_is_not_cached_either(server: CalibratedServer) -> None:
    server.configure(ttft_ms=1, gap_ms=0.2)
    for _ in range(2):
        _, log, before = await run(server, Iterations(requests=10))
        assert {entry.cached_tokens for entry in [*before, *log]} == {0}


async def test_repeated_prompts_report_what_is_cached(server: CalibratedServer) -> None:
    server.configure(ttft_ms=1, gap_ms=0.2)
    records, log, _ = await run(server, Iterations(requests=10), prompts=Prompts(mode="repeat", tokens=64))
    assert len({record.prompt_sha256 for record in records}) == 1
    assert [record.cached_tokens for record in records] == [entry.cached_tokens for entry in log]
    assert {entry.prompt_tokens - entry.cached_tokens for entry in log} == {1}  # a warm-up has brought all the rest


async def test_a_shared_prefix_is_cached_up_to_where_it_ends(server: CalibratedServer) -> None:
    server.configure(ttft_ms=1, gap_ms=0.2)
    prompts = Prompts(mode="shared_prefix", tokens=100, shared_tokens=50)
    records, log, _ = await run(server, Iterations(requests=10), prompts=prompts)
    assert [record.cached_tokens for record in records] == [entry.cached_tokens for entry in log]
    assert {entry.cached_tokens for entry in log} <= set(range(48, 53))
