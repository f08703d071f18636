"""Operations in memory: nothing is lost or doubled, whatever the clock, the threads and the names do."""

import gc
import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ai_lab.telemetry.operations.histogram import DamagedCounts, DurationHistogram, pack
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.slot import MOST_NAMES, MOST_SLOWEST, OperationSlot, merged
from tests.telemetry.clocks import Clocks


def counts(slots: Iterable[OperationSlot]) -> dict[str, int]:
    return {name: timing.durations.count for (_, name), timing in merged(slots).timings.items()}


def test_slots_are_aligned_to_the_wall_clock() -> None:
    clocks = Clocks(wall=1_800_000_003.0)
    operations = clocks.operations()
    for _ in range(4):
        operations.record("http", "GET /", 0.01)
        clocks.pass_by(7)
    finished = operations.finished()
    assert [slot.start for slot in finished] == [1_800_000_000, 1_800_000_010, 1_800_000_020]
    assert [slot.count for slot in finished] == [1, 2, 1]
    assert {slot.writer_id for slot in finished} == {finished[0].writer_id}


def test_slots_stay_readable_until_they_are_stored() -> None:
    clocks = Clocks()
    operations = clocks.operations()
    operations.record("http", "GET /", 0.01)
    assert operations.finished() == []
    clocks.pass_by(10)
    operations.record("http", "GET /", 0.01, failed=True)
    finished = operations.finished()
    assert counts(finished) == {"GET /": 1}
    assert counts(operations.readable()) == {"GET /": 2}
    operations.forget(finished)
    assert operations.finished() == []
    assert counts(operations.readable()) == {"GET /": 1}
    rest = operations.finished(everything=True)
    assert counts(rest) == {"GET /": 1}
    assert merged(rest).timings["http", "GET /"].failed == 1


def test_what_is_readable_does_not_change_under_its_reader() -> None:
    operations = Clocks().operations()
    operations.record("http", "GET /", 0.01)
    seen = operations.readable()
    operations.record("http", "GET /", 0.01)
    assert counts(seen) == {"GET /": 1}


@pytest.mark.parametrize("seed", range(20))
def test_a_clock_that_is_set_loses_and_doubles_nothing(seed: int) -> None:
    """Whoever stores slots by writer and start finds every operation once."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    clocks = Clocks()
    operations = clocks.operations(most_waiting=10_000)
    recorded: Counter[str] = Counter()
    stored: dict[tuple[str, int], OperationSlot] = {}
    for _ in range(400):
        action = chance.random()
        if action < 0.6:
            name = chance.choice("abc")
            operations.record("function", name, 0.001)
            recorded[name] += 1
        elif action < 0.85:
            clocks.pass_by(chance.uniform(0, 25))
        elif action < 0.93:
            clocks.set_wall(chance.choice([-100_000, -3600, -60, -11, -1, -0.5, 0.5, 60, 3600, 100_000]))
        else:
            finished = operations.finished(everything=chance.random() < 0.3)
            assert not stored.keys() & {(slot.writer_id, slot.start) for slot in finished}
            stored |= {(slot.writer_id, slot.start): slot for slot in finished}
            operations.forget(finished)
    everywhere = [*stored.values(), *operations.readable()]
    assert counts(everywhere) == recorded
    assert len({(slot.writer_id, slot.start) for slot in everywhere}) == len(everywhere)


def test_every_slot_says_for_how_long_of_it_the_process_ran() -> None:
    clocks = Clocks(wall=1_800_000_004.0)
    operations = clocks.operations()
    clocks.pass_by(31)
    quiet = operations.readable()
    assert {slot.start - 1_800_000_000: slot.covered_seconds for slot in quiet} == {0: 6, 10: 10, 20: 10, 30: 5}
    clocks.pass_by(5)
    operations.forget(operations.finished())
    clocks.set_wall(3600)  # the machine slept for an hour
    clocks.pass_by(2)
    operations.readable()
    clocks.pass_by(3)
    asleep = operations.readable()
    assert sum(slot.covered_seconds for slot in asleep) == 3


def test_names_are_bounded_and_the_sum_stays_true() -> None:
    clocks = Clocks()
    operations = clocks.operations()
    operations.record("http", "GET /chat", 0.01)
    for number in range(2000):
        clocks.pass_by(0.1)
        operations.record("function", f"junk {number}", 0.01)
        operations.count(f"junk {number}", 1)
    operations.record("http", "GET /chat", 0.01)
    operations.record("http", "GET /new", 0.01)
    found = merged(operations.readable())
    assert found.count == 2003
    assert len(found.timings) == MOST_NAMES + 2
    assert found.timings["http", "GET /chat"].durations.count == 2
    assert found.timings["http", "other"].durations.count == 1
    assert sum(found.counters.values()) == 2000
    assert len(found.counters) == MOST_NAMES + 1


def test_names_can_always_be_shown() -> None:
    operations = Clocks().operations()
    operations.record("function", "x" * 100_000, 0.01)
    operations.record("function", "half \ud800", 0.01)
    names = counts(operations.readable())
    assert names == {"x" * 200: 1, "half ?": 1}


def test_a_part_of_a_call_stays_one_whatever_becomes_of_its_name() -> None:
    operations = Clocks().operations()
    operations.record("provider", "echo/" + "x" * 300, 0.01)
    operations.record("provider", "echo/" + "x" * 300 + " first_token", 0.01)
    operations.count("tokens_input echo/" + "x" * 300, 3)
    model = ("echo/" + "x" * 300)[:200]
    for number in range(MOST_NAMES):
        operations.record("function", f"junk {number}", 0.01)
        operations.count(f"junk {number}", 1)
    for _ in range(2):
        operations.record("provider", "late/model", 0.01)
        operations.record("provider", "late/model first_token", 0.01)
        operations.record("provider", "late/model output_token", 0.01)
        operations.count("tokens_input late/model", 5)
    whole = merged(operations.readable())
    found = {name: timing.durations.count for (kind, name), timing in whole.timings.items() if kind == "provider"}
    parts = {f"{model} first_token": 1, "other first_token": 2, "other output_token": 2}
    assert found == {model: 1, "other": 2, **parts}
    counters = whole.counters
    assert (counters[f"tokens_input {model}"], counters["tokens_input other"]) == (3, 10)
    full = OperationSlot()
    for number in range(MOST_NAMES):
        full.timing("function", f"junk {number}")
    full.timing("provider", "late/model first_token")
    assert ("provider", "other first_token") in full.timings


def test_the_slowest_are_kept_with_their_traces() -> None:
    clocks = Clocks()
    operations = clocks.operations()
    for number in range(50):
        operations.record("http", "GET /", number / 1000, trace_id=f"trace-{number}")
        clocks.pass_by(1)
    slowest = sorted(merged(operations.readable()).slowest, reverse=True)
    assert [slow.trace_id for slow in slowest] == [f"trace-{number}" for number in range(49, 49 - MOST_SLOWEST, -1)]
    assert slowest[0].seconds == 0.049
    assert slowest[0].at == 1_800_000_049.0


def test_what_is_no_number_can_still_be_stored() -> None:
    operations = Clocks().operations()
    for seconds in (float("nan"), float("inf"), -1.0):
        operations.record("function", "odd", seconds)
        operations.count("odd", seconds)
    (slot,) = operations.finished(everything=True)
    again = OperationSlot.decode(slot.encode())
    assert counts([again]) == {"odd": 2}
    assert again.counters == {"odd": -1.0}


def test_a_store_that_never_comes_costs_the_oldest_slots_only() -> None:
    clocks = Clocks()
    operations = clocks.operations(most_waiting=5)
    for number in range(20):
        operations.record("function", f"call {number}", 0.01)
        clocks.pass_by(10)
    assert counts(operations.finished()) == {f"call {number}": 1 for number in range(15, 20)}
    assert operations.lost_slots == 15


def test_many_threads_lose_nothing() -> None:
    """Every twentieth look at the clock begins a slot, while somebody takes the finished ones away."""
    ticks = itertools.count()
    operations = Operations(most_waiting=10_000, clock=lambda: 1_800_000_000 + next(ticks) / 2, monotonic=lambda: 0.0)
    stored: list[OperationSlot] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(first: int) -> None:
        for step in range(first, first + 5000):
            operations.record("function", f"name {step % 7}", 0.001, failed=step % 5 == 0)
            operations.count("tokens", 2)

    def store(rounds: int) -> None:
        for _ in range(rounds):
            finished = operations.finished()
            stored.extend(finished)
            operations.forget(finished)

    try:
        with ThreadPoolExecutor(9) as threads:
            storing = threads.submit(store, 300)
            list(threads.map(work, [0] * 8))
            storing.result()
    finally:
        sys.setswitchinterval(interval)
    found = merged([*stored, *operations.finished(everything=True)])
    assert found.count == 40_000
    assert sum(timing.failed for timing in found.timings.values()) == 8000
    assert found.counters == {"tokens": 80_000}


def test_garbage_that_reports_while_it_is_collected_does_not_block() -> None:
    """Garbage may be collected at any moment, here whenever the clock is read, and a monitored generator be in it."""

    def collecting_clock() -> float:
        gc.collect()
        return 1_800_000_000.0

    operations = Operations(clock=collecting_clock)

    class Reporting:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            operations.record("function", "collected", 0.001)

    gc.disable()  # not before the clock is read
    try:
        for _ in range(3):
            Reporting()
            operations.record("function", "recorded", 0.001)
    finally:
        gc.enable()
    assert counts(operations.readable()) == {"collected": 3, "recorded": 3}


def test_a_slot_comes_back_from_its_bytes() -> None:
    operations = Clocks().operations()
    for number in range(300):
        operations.record("http", f"GET /{number % 3}", number / 100, failed=number % 2 == 0, trace_id="t")
    operations.count("tokens_input echo/echo", 12)
    (slot,) = operations.finished(everything=True)
    again = OperationSlot.decode(slot.encode(), slot.start, slot.writer_id)
    assert again.encode() == slot.encode()
    assert counts([again]) == {"GET /0": 100, "GET /1": 100, "GET /2": 100}
    assert sorted(again.slowest) == sorted(slot.slowest)


DAMAGED = [
    b"",
    pack(None, []),
    pack([[], {}, []], []),
    pack([{}, {}, [], 0], [DurationHistogram()]),
    pack([[["http", "x", 0]], {}, [], 0], []),
    pack([[["http", "x", "many"]], {}, [], 0], [DurationHistogram()]),
    pack([[["http", "x"]], {}, [], 0], [DurationHistogram()]),
    pack([[], {"x": "many"}, [], 0], []),
    pack([[], {}, [["slow", 1, "http", "x", ""]], 0], []),
    pack([[], {}, [], None], []),
]


@pytest.mark.parametrize("stored", DAMAGED)
def test_a_damaged_slot_is_refused(stored: bytes) -> None:
    with pytest.raises(DamagedCounts):
        OperationSlot.decode(stored)
