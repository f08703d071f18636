"""Whole runs that are repeated, killed and resumed, and loads that are more than a server can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

import psutil
import pytest

from ai_lab.benchmarks.load.arrivals import offsets
from ai_lab.benchmarks.load.schedule import search_block
from ai_lab.benchmarks.plan import Arm, GoodputSearch, Iterations, OpenLoop, Slo
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Progress, Run
from ai_lab.benchmarks.service import Benchmarks
from tests.benchmarks.benches import ON_SQLITE, opened
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer
from tests.benchmarks.whole_runs import plan, told, told_of
from tests.fakes.openai_server import CHAT, OpenAIServer, text_reply

pytestmark = ON_SQLITE


def spans_ms(records: Sequence[Record], start: str) -> list[float]:
    """Return milliseconds from a stamp to the first token."""
    return [((one.first_token_ns or 0) - getattr(one, start)) / 1e6 for one in records]


def measured(records: Sequence[Record]) -> list[Record]:
    return sorted((one for one in records if one.phase == "measured"), key=lambda one: one.index)


async def test_the_same_seed_asks_the_same_in_the_same_order_and_never_the_same_prompt(database_url: str) -> None:
    """Two arms in random order, twice: all that differs is the number in front, and that differs always."""
    async with OpenAIServer() as server, opened(database_url, command=None) as benchmarks:
        server.script(CHAT, text_reply(*(["word "] * 4)))
        arms = [Arm(model="tiny", url=server.base_url, name=name, options={"user": name}) for name in ("a", "b")]
        asked = plan(*arms, load=Iterations(requests=10), tokens=4, blocks=5, seed=7)
        first = await told(benchmarks, (await benchmarks.start(asked)).id)
        again = await told(benchmarks, (await benchmarks.rerun(first.run.id)).id)
        other = await told(benchmarks, (await benchmarks.start(asked.model_copy(update={"seed": 8}))).id)
    bodies = [request.json() for request in server.received(CHAT)]
    of_a_run = len(bodies) // 3
    seen = []
    numbers = []
    for body in bodies:
        number, _, text = body.pop("messages")[0]["content"].partition("\n\n")
        seen.append((text, sorted((name, str(value)) for name, value in body.items())))
        numbers.append(number)
    one, two, three = (seen[at * of_a_run : (at + 1) * of_a_run] for at in range(3))
    assert one == two
    assert one != three
    assert len(set(numbers)) == len(numbers) == 3 * of_a_run
    assert all(number.isdigit() and len(number) == 15 for number in numbers)
    assert (first.run.plan, first.run.status, other.run.status) == (again.run.plan, "complete", "complete")
    hashes = [result.report.provenance["schedule_sha256"] for result in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    order = [record.arm for record in measured(first.records)]
    assert order == [record.arm for record in measured(again.records)]
    assert order not in ([0, 0, 1, 1] * 5, [0] * 10 + [1] * 10)


async def test_a_process_that_is_killed_in_mid_run_repeats_one_block_at_most(
    database_url: str, server: CalibratedServer
) -> None:
    server.configure(ttft_ms=20, gap_ms=5)
    async with opened(database_url, command=None) as benchmarks:
        asked = plan(Arm(model=MODEL, url=server.url), requests=40, concurrency=1, blocks=8)
        run = await benchmarks.start(asked)
        await _until_blocks(benchmarks, run.id, 3)
        [worker] = [one for one in psutil.Process().children() if "ai_lab.benchmarks.worker" in " ".join(one.cmdline())]
        worker.kill()
        failed = await told(benchmarks, run.id)
        assert (failed.run.status, failed.run.error_code) == ("failed", "benchmark_failed")
        assert "signal 9" in (failed.run.error or "")
        assert "resume goes on with it" in (failed.run.error or "")
        complete = len({one.block for one in measured(failed.records)})
        assert failed.cell.counts.all >= 15
        assert failed.reason("incomplete").limit == 40

        await benchmarks.resume(run.id)
        ended = await told(benchmarks, run.id)

    assert (ended.run.status, ended.run.resumed, ended.run.error) == ("complete", 1, None)
    assert [one.index for one in measured(ended.records)] == list(range(40))
    assert ended.cell.counts.ok == 40
    assert "incomplete" not in ended.codes(notes=True)
    discarded = {one.block for one in ended.records if one.phase == "discarded"}
    assert len(discarded) <= 1
    assert complete >= 3
    # Every measured request but those of the one block that was cut short has been sent once.
    sent = Counter(one.prompt_sha256 for one in server.log())
    assert {sent[one.prompt_sha256] for one in measured(ended.records)} == {1}
    assert "complete, went on after 1 interruption |" in ended.markdown
    stamps = [one.sent_ns or 0 for one in measured(ended.records)]
    assert stamps == sorted(stamps)


async def test_beyond_capacity_latency_grows_from_the_intended_time(
    database_url: str, server: CalibratedServer
) -> None:
    """D/D/1 at twice what it can serve: request k waits k x (service - interval)."""
    server.configure(slots=1, ttft_ms=30, gap_ms=5, sends_headers_early=False)
    asked = plan(
        Arm(model=MODEL, url=server.url),
        load=OpenLoop(requests=24, rates=[40.0], arrivals="constant"),
        tokens=5,
        warmup=1,
    )
    result = await told_of(database_url, asked)
    records = measured(result.records)
    service_ms, interval_ms = 50, 25
    scheduled = spans_ms(records, "intended_ns")
    # In the order of serving: requests that a busy machine sends together may overtake each other on their way.
    began_ns = records[0].intended_ns or 0
    served = sorted(((one.first_token_ns or 0) - began_ns) / 1e6 for one in records)
    assert -0.5 <= min(got - (30 + at * service_ms) for at, got in enumerate(served)) < 15
    assert 0.95 <= (served[-1] - served[0]) / (23 * service_ms) <= 1.8  # a busy machine serves slower, never faster
    waited = sum(scheduled) / 24
    assert waited == pytest.approx(sum(served) / 24 - 11.5 * interval_ms, abs=0.1)
    metrics = result.cell.metrics
    assert metrics["ttft_sched"].max == pytest.approx(max(scheduled))
    stability = result.cell.stability
    kept = scheduled[stability.dropped_as_warmup if stability else 0 :]  # a busy machine makes the first ones slow
    assert metrics["ttft_sched"].median.value == pytest.approx(median(kept))
    # Requests are sent when they are due, whatever the server does, so that here both tell of the queue.
    offered, done = result.cell.totals["offered_rps"].value, result.cell.totals["request_rps"].value
    assert offered == pytest.approx(40, rel=0.01)
    assert done is not None
    assert 10 < done < 21.5


async def test_the_search_finds_what_a_server_can_serve(database_url: str, server: CalibratedServer) -> None:
    """Service takes 20 ms, one at a time: what each rate gives follows from the arrivals that the seed draws."""
    server.configure(slots=1, ttft_ms=14, gap_ms=2)
    slo = Slo(e2e_ms=120, share=0.8)
    load = GoodputSearch(slo=slo, start_rate=20, most_rate=200, requests=30, precision=0.25)
    asked = plan(Arm(model=MODEL, url=server.url), load=load, tokens=4, warmup=1)
    result = await told_of(database_url, asked)
    best, steps = result.report.highest_rate, result.report.search
    assert best is not None
    assert best.value is not None
    assert best.high is not None
    assert best.high - best.value <= load.precision * best.high
    tried = {step.rate: step.holds for step in steps}
    assert tried[best.value]
    assert not tried[best.high]
    for number, step in enumerate(steps):
        arrivals = offsets(asked, search_block(asked, number, step.rate)).tolist()
        share = step.share_good.value
        assert share is not None
        assert _good_share(arrivals, 60) <= share <= _good_share(arrivals, 120)
        assert step.holds == (share >= slo.share)
    assert f"{best.value:g}" in result.markdown


def _good_share(arrivals: list[float], limit_ms: float) -> float:
    """Return the share of requests that end within the limit where one after the other takes 20 ms."""
    free_at, good = 0.0, 0
    for at in arrivals:
        free_at = max(free_at, at) + 0.020
        good += (free_at - at) * 1000 <= limit_ms
    return good / len(arrivals)


async def _until_blocks(benchmarks: Benchmarks, run_id: str, blocks: int) -> None:
    async for event in benchmarks.events(run_id):
        assert not isinstance(event, Run), event.error
        if isinstance(event, Progress) and event.blocks_done >= blocks:
            return
