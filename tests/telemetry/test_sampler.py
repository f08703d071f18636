"""The background sampler: a true first answer, a steady pace, gaps that are told, and failures that it survives."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from ai_lab.clock import now
from ai_lab.telemetry.machine.sampler import Sampler, Snapshot, next_tick
from ai_lab.telemetry.schemas import GpuBackend, GpuMetrics, GpuStatus


class _Gpus:
    """A driver that says what it is told to say, and waits while it is told to wait."""

    def __init__(self, status: GpuStatus = "ok") -> None:
        self.status: GpuStatus = status
        self.gpus = [GpuMetrics(index=0, utilization_percent=42.0)]
        self.asked: list[bool] = []
        self.is_closed = False
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, *, with_processes: bool) -> tuple[list[GpuMetrics], GpuBackend]:
        self.asked.append(with_processes)
        self.go_on.wait(30)
        return self.gpus if self.status == "ok" else [], GpuBackend(status=self.status, detail="as told")

    def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def _running(sampler: Sampler) -> AsyncIterator[Sampler]:
    await sampler.start()
    try:
        yield sampler
    finally:
        await sampler.close()


async def _collect(sampler: Sampler, count: int) -> list[Snapshot]:
    """Return the next so many snapshots."""
    arrived: asyncio.Queue[Snapshot] = asyncio.Queue()
    sampler.add_listener(arrived.put_nowait)
    async with asyncio.timeout(30):
        return [await arrived.get() for _ in range(count)]


def _last_success(sampler: Sampler) -> float | None:
    return sampler.statuses["gpu"].last_success_at


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.01)


async def test_the_first_answer_is_measured() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
    try:
        await asyncio.sleep(0.2)
        async with _running(Sampler(interval_seconds=60, gpus=_Gpus())) as sampler:
            assert sampler.latest() is None
            snapshot = await sampler.first(10)
    finally:
        child.kill()
        await child.wait()
    metrics = snapshot.metrics
    assert metrics.cpu_usage_percent
    assert metrics.cpu_usage_percent > 40 / metrics.cpu.count
    assert metrics.interval_seconds >= 0.25
    assert metrics.gpu_utilization_percent == 42.0
    assert metrics.timestamp == snapshot.taken_at
    assert not snapshot.is_continuous
    assert snapshot.counters.cpu_seconds["0", "user"] > 0
    assert sampler.latest() is snapshot


async def test_snapshots_go_on_and_listeners_hear_of_each_in_the_event_loop() -> None:
    gpus, threads = _Gpus(), set[int]()

    def fail(_: Snapshot) -> None:
        raise LookupError("a listener of a test fails")

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context.get("exception")))
    async with _running(Sampler(interval_seconds=0.1, gpus=gpus)) as sampler:
        sampler.add_listener(fail)
        sampler.add_listener(lambda _: threads.add(threading.get_ident()))
        snapshots = await _collect(sampler, 4)
        assert [snapshot.is_continuous for snapshot in snapshots] == [False, True, True, True]
        status = sampler.statuses["host"]
        assert status.last_success_at == pytest.approx(time.time(), abs=10)
        assert status.duration_seconds
        assert status.errors == {}
        assert sampler.latest()
    assert threads == {threading.get_ident()}
    assert complaints
    assert all(isinstance(complaint, LookupError) for complaint in complaints)
    assert gpus.is_closed
    assert gpus.asked[:3] == [True, False, False], "what is slow is not asked for at every tick"
    count = len(gpus.asked)
    await asyncio.sleep(0.3)
    assert len(gpus.asked) == count, "it has ended"


@pytest.mark.parametrize("shift", [timedelta(hours=2), timedelta(hours=-2), timedelta(seconds=-3)])
async def test_a_clock_that_is_set_is_told_once(shift: timedelta) -> None:
    offset = timedelta()

    def clock() -> datetime:
        return now() + offset

    async with _running(Sampler(interval_seconds=0.1, gpus=_Gpus(), wall_clock=clock)) as sampler:
        await _collect(sampler, 3)
        before = sampler.latest()
        offset = shift
        after = [snapshot for snapshot in await _collect(sampler, 4) if before and snapshot is not before]
    jumps = [snapshot for snapshot in after if not snapshot.is_continuous]
    assert len(jumps) == 1
    assert jumps[0].metrics.interval_seconds < 30, "shares and rates are by the monotonic clock"


async def test_a_driver_that_hangs_stops_neither_the_event_loop_nor_the_end() -> None:
    gpus = _Gpus()
    gpus.go_on.clear()
    sampler = Sampler(interval_seconds=0.1, gpus=gpus)
    await sampler.start()
    with pytest.raises(TimeoutError):
        await sampler.first(0.6)
    assert gpus.asked == [True]
    began = time.monotonic()
    await sampler.close()
    assert time.monotonic() - began < 20
    assert not gpus.is_closed
    gpus.go_on.set()


async def test_a_gpu_that_fails_is_counted_and_asked_again() -> None:
    gpus = _Gpus("error")
    async with _running(Sampler(interval_seconds=0.05, gpus=gpus)) as sampler:
        snapshots = await _collect(sampler, 3)
        assert all(snapshot.metrics.gpu_backend.status == "error" for snapshot in snapshots)
        assert all(snapshot.metrics.cpu.count for snapshot in snapshots)
        assert sampler.statuses["gpu"].errors["error"] >= 3
        assert _last_success(sampler) is None
        gpus.status = "ok"
        assert (await _collect(sampler, 2))[1].metrics.gpu_utilization_percent == 42.0
        assert _last_success(sampler)


async def test_a_machine_without_a_gpu_is_no_failure() -> None:
    async with _running(Sampler(interval_seconds=0.1, gpus=_Gpus("no_driver"))) as sampler:
        snapshot = await sampler.first(10)
        assert snapshot.metrics.gpus == []
        assert snapshot.metrics.gpu_utilization_percent is None
        assert sampler.statuses["gpu"].errors == {}
        assert sampler.statuses["gpu"].last_success_at


async def test_readings_that_fail_leave_the_sampler_alive(caplog: pytest.LogCaptureFixture) -> None:
    is_broken = True

    def clock() -> datetime:
        if is_broken:
            raise OSError("the clock of a test is broken")
        return now()

    with caplog.at_level(logging.WARNING, "ai_lab.telemetry.machine.sampler"):
        async with _running(Sampler(interval_seconds=0.05, gpus=_Gpus(), wall_clock=clock)) as sampler:
            with pytest.raises(TimeoutError):
                await sampler.first(0.4)
            assert sampler.statuses["host"].errors["OSError"] >= 2
            is_broken = False
            snapshot = await sampler.first(10)
            assert snapshot.metrics.cpu_usage_percent is not None
            assert len(caplog.records) == 1
            is_broken = True
            failures = sampler.statuses["host"].errors["OSError"]
            await _until(lambda: sampler.statuses["host"].errors["OSError"] >= failures + 2)
            assert len(caplog.records) == 2, "once each time it begins to fail"
            is_broken = False
            assert (await _collect(sampler, 2))[1].is_continuous


async def test_figures_that_make_no_sense_are_a_failure_that_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gpus = _Gpus()
    nonsense: Any = "plenty"
    sound, gpus.gpus = gpus.gpus, [GpuMetrics.model_construct(index=0, memory_total_bytes=nonsense)]
    with caplog.at_level(logging.WARNING, "ai_lab.telemetry.machine.sampler"):
        async with _running(Sampler(interval_seconds=0.05, gpus=gpus)) as sampler:
            await _until(lambda: sampler.statuses["host"].errors.get("TypeError", 0) >= 2)
            read_at = sampler.statuses["host"].last_success_at
            await _until(lambda: sampler.statuses["host"].errors["TypeError"] >= 5)
            assert len(caplog.records) == 1
            assert sampler.statuses["host"].last_success_at == read_at, "a failure is no success as well"
            gpus.gpus = sound
            assert (await sampler.first(10)).metrics.gpu_utilization_percent == 42.0
            assert len(caplog.records) == 1


async def test_a_loop_that_ends_ends_the_sampler() -> None:
    gpus = _Gpus()

    def run_and_forget() -> None:
        async def start() -> None:
            await Sampler(interval_seconds=0.05, gpus=gpus).start()

        asyncio.run(start())

    await asyncio.to_thread(run_and_forget)
    await _until(lambda: gpus.is_closed)


async def test_closing_what_never_began_is_harmless() -> None:
    await Sampler(interval_seconds=5, gpus=_Gpus()).close()


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (100.25, 105.0),  # after the first snapshot
        (105.001, 110.0),
        (104.999, 110.0),  # woken a little early: not twice in a row
        (107.4, 110.0),
        (107.6, 115.0),  # too close to the next: skipped
        (131.0, 135.0),  # late by several: skipped, the rhythm stays
    ],
)
def test_the_schedule_is_steady_and_overruns_skip(moment: float, expected: float) -> None:
    assert next_tick(100.0, 5.0, moment) == pytest.approx(expected)


def test_a_thousand_ticks_do_not_drift() -> None:
    started = moment = 1234.5678
    for tick in range(1, 1001):
        due = next_tick(started, 5.0, moment)
        assert due == pytest.approx(started + 5.0 * tick)
        moment = due + (tick % 7) * 0.3
