"""The instrument measures itself: sane figures, faults that show, and a server that never stays behind."""

import asyncio
import signal
import subprocess
import sys
import time
from array import array

import psutil
import pytest

from ai_lab.benchmarks.observation.instrument import _stamps, calibrate
from ai_lab.benchmarks.records import Record

_PROGRAM = "calibration_server.py"
_SLEEPER = """
import asyncio
from ai_lab.benchmarks.observation.instrument import calibrate
asyncio.run(calibrate(30, 2, 20))
"""


def _servers(parent: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in parent.children():
        try:
            if any(word.endswith(_PROGRAM) for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def _server_of(parent: psutil.Process) -> psutil.Process:
    over = time.monotonic() + 20
    while not (servers := _servers(parent)):
        assert time.monotonic() < over
        time.sleep(0.05)
    return servers[0]


async def test_a_second_of_calibrating_gives_sane_figures() -> None:
    instrument = await calibrate(1.0, 4, 50.0)
    assert instrument.chunk_rate == 200
    assert 100 < instrument.achieved_rate < 250
    assert 100 <= instrument.chunks <= 400
    error = instrument.ttft_error_ms
    assert error.value is not None
    assert 0 < error.value < 50  # a chunk is never seen before it was sent
    assert error.low is not None
    assert error.high is not None
    assert error.low <= error.value <= error.high
    assert 0 <= instrument.gap_error_ms < 200
    assert error.value <= instrument.stamp_error_p99_ms < 200
    assert 1 < instrument.cpu_us_per_chunk < 5000
    assert not _servers(psutil.Process())


async def test_the_rate_is_bounded() -> None:
    instrument = await calibrate(0.3, 2, 1e6)
    assert instrument.chunk_rate == 20_000


async def test_a_client_that_is_held_up_shows_as_error() -> None:
    async def hold_up() -> None:
        while True:
            await asyncio.sleep(0.02)
            time.sleep(0.06)  # noqa: ASYNC251 - the point of the test

    holding = asyncio.create_task(hold_up())
    instrument = await calibrate(1.0, 2, 100.0)
    holding.cancel()
    assert instrument.stamp_error_p99_ms > 30
    assert instrument.gap_error_ms > 10
    assert instrument.loop_lag_p99_ms > 30
    assert instrument.achieved_rate < 250  # however many chunks one read brought


async def test_cancelling_ends_the_server() -> None:
    task = asyncio.create_task(calibrate(30, 2, 20))
    server = await asyncio.to_thread(_server_of, psutil.Process())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_running()


def test_a_killed_parent_ends_the_server() -> None:
    with subprocess.Popen([sys.executable, "-c", _SLEEPER]) as parent:
        server = _server_of(psutil.Process(parent.pid))
        time.sleep(0.5)
        parent.send_signal(signal.SIGKILL)
    psutil.wait_procs([server], timeout=30)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE  # nobody may be there to wait for it


def _record(index: int, dispatched_ns: int, *chunks_ns: int) -> Record:
    return Record(index, -1, 0, 0, "warmup", "", dispatched_ns=dispatched_ns, chunk_ns=array("q", chunks_ns))


def test_clocks_that_differ_are_brought_together() -> None:
    log = {"calibration 0": [1_100, 1_500, 100], "calibration 1": [2_100, 2_400, 100]}  # read, first, difference
    seen, sent = _stamps([_record(0, 1_000, 1_600, 1_710), _record(1, 2_000, 2_500, 2_620)], log)
    assert (seen - sent).tolist() == [[100, 110], [100, 120]]
    ahead = 5_000_000
    records = [
        _record(0, 1_000 + ahead, 1_600 + ahead, 1_710 + ahead),
        _record(1, 2_000 + ahead, 2_500 + ahead, 2_620 + ahead),
    ]
    seen, sent = _stamps(records, log)
    assert (seen - sent).tolist() == [[100, 110], [100, 120]]
