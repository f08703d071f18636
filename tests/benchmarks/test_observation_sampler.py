"""Who uses the processors, told of real processes: a hog beside the run, as the target, as the target's child."""

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.observation.readings import CpuTimes, Reading, compare
from ai_lab.benchmarks.observation.side_sampler import THREAD_NAME, SideSampler, watch_idle
from ai_lab.benchmarks.records import Sample
from ai_lab.telemetry.machine.cgroup import ContainerCpu, ContainerReading

# Several threads that compute without the lock of the interpreter: among the largest on any machine, however busy.
_BURN = "hashlib.pbkdf2_hmac('sha256', b'a', b'b', {rounds})"
_HOG = f"""
import hashlib, threading
def burn():
    while True:
        {_BURN.format(rounds=50_000)}
for _ in range(4):
    threading.Thread(target=burn).start()
"""
_PARENT_OF_HOG = "import subprocess, sys; subprocess.run([sys.executable, sys.argv[1]])"
_PARENT_OF_MANY = f"""
import subprocess, sys
while True:
    subprocess.run([sys.executable, "-S", "-c", "import hashlib; {_BURN.format(rounds=100_000)}"])
"""


@pytest.fixture
def hog_script(tmp_path: Path) -> Path:
    script = tmp_path / "busy_neighbour.py"
    script.write_text(_HOG)
    return script


@contextmanager
def _running(*arguments: str | Path) -> Iterator[int]:
    """Run Python with its children in a group of their own, and end them all."""
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True)
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@contextmanager
def _sampling(pids: Callable[[], list[int]], *, is_local: bool = True, seconds: float = 0.1) -> Iterator[SideSampler]:
    lag = LoopLag()
    lag.start()
    sampler = SideSampler(pids, targets_are_local=is_local, loop_lag=lag, interval_seconds=seconds)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.close()
        lag.close()


async def _samples(sampler: SideSampler, until: Callable[[Sample], bool]) -> Sample:
    """Return the first sample of which ``until`` holds, or fail after some seconds."""
    for _ in range(80):
        await asyncio.sleep(0.1)
        if found := [sample for sample in sampler.take() if until(sample)]:
            return found[0]
    raise AssertionError("there was no such sample")


async def test_a_busy_neighbour_is_seen_and_named(hog_script: Path) -> None:
    with _running(hog_script), _sampling(list, is_local=False) as sampler:
        sample = await _samples(sampler, lambda sample: "busy_neighbour" in dict(sample.other_top))
    assert sample.other_cpu_percent is not None
    assert sample.other_cpu_percent > 10
    assert sample.target_cpu_percent is None
    assert dict(sample.other_top)["busy_neighbour"] > 10
    assert len(sample.other_top) <= 3


async def test_the_target_is_no_neighbour(hog_script: Path) -> None:
    with _running(hog_script) as pid, _sampling(lambda: [pid]) as sampler:
        await asyncio.sleep(2.5)
        samples = [sample for sample in sampler.take() if sample.target_cpu_percent is not None][5:]
    assert sum(sample.target_cpu_percent or 0 for sample in samples) / len(samples) > 10
    assert all("busy_neighbour" not in dict(sample.other_top) for sample in samples)
    assert all((sample.target_rss_bytes or 0) > 1_000_000 for sample in samples)
    assert all(sample.other_cpu_percent is not None for sample in samples)
    known = [(sample.target_cpu_percent or 0) + (sample.other_cpu_percent or 0) for sample in samples]
    assert sum(known) / len(known) < 105


async def test_children_belong_to_the_target(hog_script: Path) -> None:
    with _running("-c", _PARENT_OF_HOG, hog_script) as pid, _sampling(lambda: [pid]) as sampler:
        await _samples(sampler, lambda sample: (sample.target_cpu_percent or 0) > 10)


async def test_children_that_end_before_they_are_found_belong_to_the_target() -> None:
    with _running("-c", _PARENT_OF_MANY) as pid, _sampling(lambda: [pid]) as sampler:
        await asyncio.sleep(2.5)
        used = [sample.target_cpu_percent or 0 for sample in sampler.take()]
    assert sum(used) / len(used) > 5


async def test_a_target_that_is_here_but_not_found_leaves_the_others_unknown() -> None:
    with _sampling(list) as sampler:
        sample = await _samples(sampler, lambda _: True)
    assert sample.other_cpu_percent is None
    assert sample.target_cpu_percent is None
    assert sample.target_rss_bytes is None
    assert sample.cpu_percent is not None


async def test_a_target_that_ends_becomes_unknown_and_another_one_is_asked_for(hog_script: Path) -> None:
    pids: list[int] = []
    with _running(hog_script) as second, _running(hog_script) as first:
        pids[:] = [first]
        with _sampling(lambda: pids) as sampler:
            await _samples(sampler, lambda sample: sample.target_cpu_percent is not None)
            os.kill(first, 9)
            await _samples(sampler, lambda sample: sample.other_cpu_percent is None)
            pids[:] = [second]
            sampler.take()
            await _samples(sampler, lambda sample: sample.target_cpu_percent is not None)


async def test_this_process_is_never_its_target() -> None:
    with _sampling(lambda: [os.getpid()]) as sampler:
        over = time.process_time() + 1.0
        while time.process_time() < over:
            sum(range(10_000))
        samples = sampler.take()[1:]
    ours = sum(sample.client_cpu_percent or 0 for sample in samples)
    assert ours / len(samples) > 2
    assert sum(sample.target_cpu_percent or 0 for sample in samples) < ours / 2


async def test_samples_are_on_the_clock_of_the_records_and_taken_once() -> None:
    began = time.perf_counter_ns()
    with _sampling(lambda: [os.getpid()], is_local=False) as sampler:
        await asyncio.sleep(1)
        samples = sampler.take()
        assert len(sampler.take()) <= 1
    stamps = [sample.at_ns for sample in samples]
    assert began < stamps[0]
    assert stamps[-1] < time.perf_counter_ns()
    assert stamps == sorted(stamps)
    assert samples[-1].memory_used_bytes
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


async def test_watching_idle_gives_the_samples_of_that_time_alone() -> None:
    with _sampling(list, is_local=False) as sampler:
        await asyncio.sleep(0.5)
        began = time.perf_counter_ns()
        samples = await watch_idle(sampler, 0.5)
    assert samples
    assert samples[0].at_ns > began


async def test_a_loop_that_is_stuck_shows_in_samples_and_in_the_percentile() -> None:
    lag = LoopLag()
    lag.start()
    await asyncio.sleep(0.05)
    time.sleep(0.2)  # noqa: ASYNC251 - the point of the test
    await asyncio.sleep(0.05)
    lag.close()
    assert (lag.take_worst_ms() or 0) > 150
    assert (lag.take_p99_ms() or 0) > 150
    assert lag.take_worst_ms() is None
    assert lag.take_p99_ms() is None


async def test_the_percentile_of_delays_is_within_a_percent() -> None:
    lag = LoopLag()
    for hundredth in range(1, 101):
        lag._counts[int(100 * math.log1p(1000 * hundredth))] += 1  # 1 to 100 ms
    assert lag.take_p99_ms() == pytest.approx(99, rel=0.01)


def _reading(at_seconds: float, busy: float, own: float, container: ContainerCpu | None, steal: float = 0) -> Reading:
    return Reading(
        at_ns=round(at_seconds * 1e9),
        cpu=CpuTimes(cores=8, processes=busy, interrupts=0.4 * at_seconds, idle=100 - busy, steal=steal),
        own_seconds=own,
        target=None,
        container=ContainerReading(container, None) if container else None,
        memory=None,
        swapped=(0, 4096 * round(at_seconds)),
        throttle_events=round(3 * at_seconds),
    )


def test_shares_are_of_all_usable_processors() -> None:
    sample = compare(_reading(1, 10, 0, None), _reading(2, 14, 0.8, None, steal=0.16), is_target_here=False)
    assert sample.cpu_percent == pytest.approx(55)  # interrupts are in it
    assert sample.client_cpu_percent == pytest.approx(10)
    assert sample.other_cpu_percent == pytest.approx(40)  # but nobody's
    assert sample.steal_percent == pytest.approx(2)
    assert (sample.swap_in_bytes, sample.swap_out_bytes) == (0, 4096)
    assert sample.cpu_throttle_events == 3


@pytest.mark.parametrize(("used_by_group", "other"), [(1.2, 10), (1.8, 40)])
def test_under_a_limit_others_in_the_container_count_and_so_do_those_outside(
    used_by_group: float, other: float
) -> None:
    earlier = _reading(1, 10, 0, ContainerCpu(limit_cores=2, used_seconds=5))
    later = _reading(2, 11.8, 1, ContainerCpu(limit_cores=2, used_seconds=5 + used_by_group))
    sample = compare(earlier, later, is_target_here=False)
    assert sample.client_cpu_percent == pytest.approx(50)  # of the two that it may use
    assert sample.cpu_percent == pytest.approx(50 * used_by_group)
    assert sample.other_cpu_percent == pytest.approx(other)


def test_a_system_that_does_not_count_gives_no_figures() -> None:
    earlier, later = _reading(1, 0, 0, None), _reading(2, 0, 0.1, None)
    frozen = CpuTimes(cores=8, processes=0, interrupts=0, idle=0, steal=0)
    sample = compare(
        Reading(earlier.at_ns, frozen, 0, None, None, None, None, None),
        Reading(later.at_ns, frozen, 0.1, None, None, None, None, None),
        is_target_here=False,
    )
    assert sample.cpu_percent is None
    assert sample.other_cpu_percent is None
    assert sample.steal_percent is None
    assert sample.swap_in_bytes is None
    assert sample.cpu_throttle_events is None
