"""Loops: what is asked when, what a slow, a dead or a cancelled server leaves behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Sequence
from typing import Any

import pytest

from ai_lab.benchmarks.load.loops import LoadGenerator, ServerGone
from ai_lab.benchmarks.load.patience import MOST_FAILURES
from ai_lab.benchmarks.load.prompts import Length, PromptSource
from ai_lab.benchmarks.load.schedule import blocks
from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import BlockDone, Record, Status, shift
from tests.benchmarks.scripted_target import ScriptedTarget, plan

MS = 1_000_000  # nanoseconds


class Run:
    """A run of scripted targets, one per arm, with the records that it handed over."""

    def __init__(self, run: Plan, *targets: ScriptedTarget, attempt: int = 0) -> None:
        self.plan = run
        self.targets = targets
        self.records: list[Record] = []
        self.prompts = PromptSource(run, "run", attempt=attempt, length=Length(words=20))
        self.generator = LoadGenerator(run, self.prompts, self.records.append, attempt=attempt)

    async def whole(self) -> list[BlockDone]:
        return [await self.generator.run_block(block, self.targets[block.arm]) for block in blocks(self.plan)]


def closed(requests: int = 10, concurrency: Sequence[int] = (1,), **values: Any) -> Plan:
    return plan(load={"mode": "closed", "requests": requests, "concurrency": list(concurrency)}, **values)


def opened(requests: int, rate: float, arrivals: str = "constant", **values: Any) -> Plan:
    return plan(load={"mode": "open", "requests": requests, "rates": [rate], "arrivals": arrivals}, **values)


def stamps(record: Record) -> tuple[int, int, int, int]:
    """Return when it was intended, dispatched, sent and over."""
    found = (record.intended_ns, record.dispatched_ns, record.sent_ns, record.end_ns)
    assert all(stamp is not None for stamp in found)
    return tuple(stamp or 0 for stamp in found)  # type: ignore[return-value]  # four as above


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_closed_loop_has_so_many_under_way_and_asks_everything_once(concurrency: int) -> None:
    target = ScriptedTarget(service_seconds=0.002)
    run = Run(closed(40, [concurrency], output_tokens=7, seed=5), target)
    done = await run.whole()
    assert target.most_at_once == concurrency
    assert sorted(record.index for record in run.records) == list(range(40))
    assert len({question.prompt for question in target.asked}) == len({one.prompt_sha256 for one in run.records}) == 40
    assert {(one.output_tokens, one.seed, one.force_output_length) for one in target.asked} == {(7, 5, True)}
    assert {(one.phase, one.status, one.level, one.arm) for one in run.records} == {("measured", "ok", 0, 0)}
    assert [block.block for block in done] == list(range(len(done)))
    assert all(block.offered_rate is None for block in done)
    for block in done:
        mine = [stamps(record) for record in run.records if record.block == block.block]
        assert all(
            block.started_ns <= intended <= dispatched <= sent <= end <= block.ended_ns
            for intended, dispatched, sent, end in mine
        )


async def test_in_a_closed_loop_a_turn_comes_when_the_request_before_it_has_ended() -> None:
    run = Run(closed(5), ScriptedTarget(service_seconds=0.02))
    await run.whole()
    times = [stamps(record) for record in run.records]
    for before, after in itertools.pairwise(times):
        assert 0 <= after[0] - before[3] < 500 * MS


async def test_arms_get_the_same_bodies_and_their_own_numbers_and_options() -> None:
    arms = [{"model": "echo/x", "name": name, "options": {"temperature": heat}} for name, heat in (("a", 0), ("b", 1))]
    first, second = ScriptedTarget(), ScriptedTarget()
    await Run(
        closed(8, arms=2).model_copy(update={"arms": Plan.model_validate({"arms": arms}).arms}), first, second
    ).whole()
    bodies = [[one.prompt.split("\n\n", 1)[1] for one in target.asked] for target in (first, second)]
    assert bodies[0] == bodies[1]
    assert len({one.prompt for one in first.asked + second.asked}) == 16
    assert [{one.options["temperature"] for one in target.asked} for target in (first, second)] == [{0}, {1}]


async def test_an_open_loop_sends_at_its_times_whatever_the_server_does() -> None:
    target = ScriptedTarget(service_seconds=10, slots=1)
    run = Run(opened(30, 100), target)
    task = asyncio.create_task(run.whole())
    await target.was_asked(30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    times = [stamps(record) for record in sorted(run.records, key=lambda one: one.index)]
    assert [round((after[0] - before[0]) / MS, 3) for before, after in itertools.pairwise(times)] == [10] * 29
    delays = sorted(dispatched - intended for intended, dispatched, _, _ in times)
    assert delays[0] >= 0
    assert delays[len(delays) // 2] < 20 * MS
    assert {record.status for record in run.records} == {"cancelled"}


async def test_a_wait_for_a_connection_shows_in_latencies_from_the_intended_time_and_hides_from_the_others() -> None:
    """D/D/1: constant arrivals at twice the rate that one slot serves; the k-th waits k (S - 1 / rate) longer."""
    service, rate, requests = 0.02, 100.0, 40

    class OnePerConnection(ScriptedTarget):
        """A client of this server waits for a connection before it sends, as with a pool of one."""

        async def ask(self, question: Any, record: Record) -> None:
            async with self._slots:
                record.sent_ns = time.perf_counter_ns()
                await asyncio.sleep(service)
            record.status, record.end_ns = "ok", time.perf_counter_ns()

    run = Run(opened(requests, rate), OnePerConnection(slots=1))
    (done,) = await run.whole()
    times = [stamps(record) for record in sorted(run.records, key=lambda one: one.index)]
    # The service takes what it takes on a busy machine; the law holds for what it really took.
    services = [end - sent for _, _, sent, end in times]
    for k, (intended, _, sent, _) in enumerate(times):
        expected = sum(services[:k]) - k * 1e9 / rate
        assert (sent - intended) >= expected - 1 * MS
        assert (sent - intended) - expected < (50 + 2 * k) * MS
    assert times[-1][3] - times[-1][0] > (requests - 1) * (service - 1 / rate) * 1e9  # from the intended time
    assert services[-1] < 0.25 * (times[-1][3] - times[-1][0])  # from the sending
    assert done.offered_rate == pytest.approx(rate)


async def test_a_poisson_block_keeps_its_times_and_tells_what_it_offered() -> None:
    run = Run(opened(100, 400, "poisson"), ScriptedTarget())
    (done,) = await run.whole()
    intended = sorted(stamps(record)[0] for record in run.records)
    assert done.offered_rate is not None
    assert (intended[-1] - intended[0]) / 1e9 == pytest.approx(100 / done.offered_rate, rel=0.1)
    assert all(dispatched >= due for due, dispatched, _, _ in map(stamps, run.records))


async def test_waiting_for_the_next_time_does_not_burn_a_core() -> None:
    run = Run(opened(10, 10), ScriptedTarget())
    (done,) = await run.whole()
    assert done.client_cpu_seconds < 0.5 * (done.ended_ns - done.started_ns) / 1e9


async def test_warm_up_is_like_the_measured_requests_and_no_part_of_them() -> None:
    target = ScriptedTarget()
    run = Run(closed(3, arms=2).model_copy(update={"warmup": 4}), target, target)
    again = Run(run.plan, target, target, attempt=1)
    for one in (run, again):
        for arm in range(2):
            await one.generator.warm_up(arm, target)
        await one.whole()
    records = run.records + again.records
    warm_ups = [record for record in records if record.phase == "warmup"]
    assert len(warm_ups) == 16
    assert {record.block for record in warm_ups} == {-1}
    assert len({record.index for record in warm_ups}) == 16
    assert all(record.index < 0 for record in warm_ups)
    assert len({question.prompt.split()[0] for question in target.asked}) == len(target.asked) == 16 + 12


async def test_a_cancelled_block_hands_over_what_is_under_way_and_leaves_nothing_behind() -> None:
    target = ScriptedTarget(service_seconds=30)
    run = Run(closed(100, [8]), target)
    task = asyncio.create_task(run.whole())
    await target.was_asked(8)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 5
    assert [record.status for record in run.records] == ["cancelled"] * 8
    assert all(record.end_ns for record in run.records)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert gc.isenabled()


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_dead_server_ends_the_run_and_not_each_request(concurrency: int) -> None:
    run = Run(closed(1000, [concurrency]), ScriptedTarget(statuses=["error"]))
    with pytest.raises(ServerGone, match=r"20 requests in a row failed, the last with: Connection refused\.") as gone:
        await run.whole()
    assert gone.value.arm == 0
    assert MOST_FAILURES <= len(run.records) < MOST_FAILURES + concurrency


async def test_failures_count_over_short_blocks_and_by_arm() -> None:
    run = Run(closed(100, arms=2, blocks=100), ScriptedTarget(), ScriptedTarget(statuses=["error"]))
    with pytest.raises(ServerGone, match=r"^arm 1: 20 requests") as gone:
        await run.whole()
    assert gone.value.arm == 1
    assert [record.status for record in run.records].count("error") == MOST_FAILURES


async def test_a_server_that_answers_now_and_then_is_not_gone() -> None:
    statuses: list[Status] = [*["error"] * 19, "short"]  # type: ignore[list-item]
    run = Run(closed(100), ScriptedTarget(statuses=statuses))
    await run.whole()
    assert len(run.records) == 100


@pytest.mark.parametrize(
    ("status", "http_status", "goes_on"),
    [
        ("error", 429, True),
        ("error", 503, True),
        ("timeout", None, True),
        ("error", None, False),
        ("error", 404, False),
    ],
)
async def test_too_much_load_is_a_result_of_an_open_loop_and_a_dead_server_is_none(
    status: Status, http_status: int | None, *, goes_on: bool
) -> None:
    run = Run(opened(60, 2000), ScriptedTarget(statuses=[status], http_status=http_status))
    if goes_on:
        await run.whole()
        assert len(run.records) == 60
    else:
        with pytest.raises(ServerGone):
            await run.whole()
        assert len(run.records) < 60


async def test_a_dead_server_does_not_wait_for_requests_that_hang() -> None:
    class HangsFirst(ScriptedTarget):
        async def ask(self, question: Any, record: Record) -> None:
            self._service_seconds = 30 if len(self.asked) < 5 else 0
            await super().ask(question, record)

    run = Run(opened(200, 2000), HangsFirst(statuses=["error"]))
    began = time.monotonic()
    with pytest.raises(ServerGone):
        await run.whole()
    assert time.monotonic() - began < 10
    assert [record.status for record in run.records].count("cancelled") >= 5


async def test_an_error_of_the_program_is_raised_as_it_is() -> None:
    class Broken(ScriptedTarget):
        async def ask(self, question: Any, record: Record) -> None:
            raise ZeroDivisionError

    for wanted in (closed(10, [4]), opened(10, 1000)):
        run = Run(wanted, Broken())
        with pytest.raises(ZeroDivisionError):
            await run.whole()
        assert run.records


async def test_the_garbage_collector_is_off_in_a_block_and_what_it_does_there_is_told() -> None:
    class Looks(ScriptedTarget):
        async def ask(self, question: Any, record: Record) -> None:
            await super().ask(question, record)
            seen.append(gc.isenabled())
            if record.index == 3:
                gc.collect()

    seen: list[bool] = []
    run = Run(closed(20), Looks())
    first, second = await run.whole()
    assert set(seen) == {False}
    assert gc.isenabled()
    assert first.gc_pause_ms > 0
    assert second.gc_pause_ms == 0
    assert first.client_cpu_seconds > 0


@pytest.mark.parametrize(("more_characters", "written_before"), [(0, 20), (3_000_000, 12)])
async def test_prompts_are_written_before_the_block_unless_they_are_too_long_to_hold(
    more_characters: int, written_before: int
) -> None:
    class Counts(PromptSource):
        def measured(self, index: int, position: int) -> str:
            written.append(index)
            more = "x" * more_characters if index else ""  # the first one tells nothing of the others
            return super().measured(index, position) + more

    class Looks(ScriptedTarget):
        async def ask(self, question: Any, record: Record) -> None:
            seen.append(len(written))
            await super().ask(question, record)

    written: list[int] = []
    seen: list[int] = []
    wanted = closed(20, blocks=1)
    generator = LoadGenerator(wanted, Counts(wanted, "run", length=Length(words=20)), lambda _: None)
    await generator.run_block(blocks(wanted)[0], Looks())
    assert seen[0] == written_before
    assert written == list(range(20))
    assert len(seen) == 20


async def test_what_held_up_the_loop_before_a_block_is_no_lag_of_the_block() -> None:
    class Slow(PromptSource):
        def measured(self, index: int, position: int) -> str:
            time.sleep(0.05)
            return super().measured(index, position)

    run = closed(4, blocks=1)
    lag = LoopLag()
    lag.start()
    generator = LoadGenerator(run, Slow(run, "run", length=Length(words=20)), lambda _: None, lag=lag)
    [block] = blocks(run)
    done = await generator.run_block(block, ScriptedTarget(service_seconds=0.1))
    lag.close()
    assert done.loop_lag_p99_ms is not None
    assert done.loop_lag_p99_ms < 50


async def test_how_long_all_has_failed_is_told_by_stamps_of_another_clock_too() -> None:
    def move(record: Record) -> None:
        shift(record, -(10**15))  # as where the machine was started anew

    run = closed(12, blocks=1)
    generator = LoadGenerator(run, PromptSource(run, "run", length=Length(words=20)), move)
    [block] = blocks(run)
    await generator.run_block(block, ScriptedTarget(statuses=["error"]))
