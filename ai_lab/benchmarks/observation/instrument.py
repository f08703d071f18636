"""What measuring does to the figures: our own client against a server of our own whose stamps are known.

Both sides stamp with ``time.perf_counter_ns()``, which is one clock for all processes of a machine (Linux:
CLOCK_MONOTONIC, macOS: mach_absolute_time, Windows: QueryPerformanceCounter). This is checked: no request may be read
before it was sent, and no chunk before it was written. Where that fails, the difference of the clocks is taken to be in
the middle of what these rules allow.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.intervals import percentile_interval
from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Instrument
from ai_lab.benchmarks.targets.address import Address
from ai_lab.benchmarks.targets.connection import Connections
from ai_lab.benchmarks.targets.openai import OpenAITarget
from ai_lab.benchmarks.targets.target import Question, Target
from ai_lab.errors import BenchmarkFailed

MOST_CHUNKS_PER_SECOND = 20_000
LEAST_CHUNKS_PER_SECOND = 10  # of a stream: fewer would tell nothing within a few seconds
_SERVER = Path(__file__).with_name("calibration_server.py")
_START_SECONDS = 10.0
_ANSWERS_PER_STREAM = 12
_NANOSECONDS = 1e9
_MILLI_NS = _MICRO = 1e6
_P99 = 99

_Stamps = NDArray[np.int64]


async def calibrate(seconds: float, streams: int, chunk_rate_per_stream: float) -> Instrument:
    """Stream chunks at the planned rate and compare our stamps with the server's.

    ``ttft_error_ms`` is that of the first chunk: the request's own stamp is taken right before it is written, so that
    the error of TTFT is the first chunk's. ``cpu_us_per_chunk`` is all that the event loop did in the time, beginnings
    and ends of requests included; below some 200 chunks per second, waking up is most of it. ``achieved_rate`` is the
    pace within answers, without the pauses between them.

    Args:
        seconds: how long; the answer comes about half a second later.
        streams: requests at a time.
        chunk_rate_per_stream: chunks per second, at least 10; all streams together get 20,000 at most.

    Raises:
        BenchmarkFailed: the server of our own could not be started, or not one answer came through.
    """
    rate = min(max(chunk_rate_per_stream, LEAST_CHUNKS_PER_SECOND), MOST_CHUNKS_PER_SECOND / streams)
    chunks = max(2, round(rate * seconds / _ANSWERS_PER_STREAM))
    lag = LoopLag()
    numbers = itertools.count()
    try:
        async with asyncio.timeout(_START_SECONDS + 4 * seconds), _server(rate, 60 + 5 * seconds) as (process, port):
            async with _client(port) as target:
                await _ask(target, numbers, streams, chunks=2, seconds=0)  # connections are made, code is loaded
                lag.start()
                cpu_began = time.thread_time()  # of the event loop alone, without other observers
                records = await _ask(target, numbers, streams, chunks, seconds)
                cpu_seconds = time.thread_time() - cpu_began
            log, _ = await process.communicate(b"")  # which ends its input
    except TimeoutError:
        raise BenchmarkFailed("Calibrating took too long. Stop what else this machine does, and try again.") from None
    finally:
        lag.close()
    whole = [record for record in records if record.status == "ok" and len(record.chunk_ns) == chunks]
    if not whole:
        raise BenchmarkFailed(f"Calibrating failed: {next((one.error for one in records if one.error), 'no answer')}")
    seen, sent = _stamps(whole, json.loads(log))
    spans = np.maximum(seen[:, -1] - seen[:, 0], sent[:, -1] - sent[:, 0])  # chunks read together came no faster
    pace = (chunks - 1) * _NANOSECONDS / np.median(spans)
    late_ms = (seen - sent) / _MILLI_NS
    return Instrument(
        seconds=seconds,
        chunks=seen.size,
        chunk_rate=streams * rate,
        achieved_rate=float(streams * pace),
        # All streams are sent to at once, so that the errors of one round have a cause in common.
        ttft_error_ms=percentile_interval(late_ms[:, 0], 0.5, clusters=[one.index // streams for one in whole]),
        stamp_error_p99_ms=float(np.percentile(np.abs(late_ms), _P99)),
        gap_error_ms=abs(_gap_p99_ms(seen) - _gap_p99_ms(sent)),
        cpu_us_per_chunk=_MICRO * cpu_seconds / seen.size,
        loop_lag_p99_ms=lag.take_p99_ms() or 0.0,
    )


@asynccontextmanager
async def _server(rate: float, most_seconds: float) -> AsyncIterator[tuple[Process, int]]:
    """Run the server; it ends with this block, and with this process however that ends."""
    gap_ns = round(_NANOSECONDS / rate)
    program = [sys.executable, "-I", "-S", str(_SERVER), str(gap_ns), str(most_seconds)]
    try:
        process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    except OSError as error:
        raise BenchmarkFailed(f"The server for calibrating cannot be started: {error}.") from None
    try:
        line = await cast("asyncio.StreamReader", process.stdout).readline()
        if not line.strip().isdigit():
            raise BenchmarkFailed("The server for calibrating ended at once: no port of 127.0.0.1 can be listened on.")
        yield process, int(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[Target]:
    url = f"http://127.0.0.1:{port}"
    connections = Connections("The server for calibrating", url, None, timeout_seconds=_START_SECONDS)
    target = OpenAITarget(Address(protocol="openai", model="calibration", base_url=url), {}, connections)
    try:
        await target.open()
        yield target
    finally:
        await target.close()


async def _ask(target: Target, numbers: Iterator[int], streams: int, chunks: int, seconds: float) -> list[Record]:
    """Ask for answers of ``chunks`` chunks, ``streams`` at a time and one each at least, none after ``seconds``."""
    records: list[Record] = []
    over_ns = time.perf_counter_ns() + seconds * _NANOSECONDS

    async def stream() -> None:
        while True:
            now = time.perf_counter_ns()
            record = Record(next(numbers), -1, 0, 0, "warmup", "", intended_ns=now, dispatched_ns=now)
            records.append(record)
            await target.ask(Question(_prompt(record), chunks), record)
            if record.status != "ok" or time.perf_counter_ns() >= over_ns:
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(stream())
    return records


def _stamps(records: list[Record], log: dict[str, list[int]]) -> tuple[_Stamps, _Stamps]:
    """Return when chunks were seen and when they were sent by our clock, shape (answers, chunks), nanoseconds."""
    times = [log[_prompt(record)] for record in records]
    seen = np.array([record.chunk_ns for record in records], dtype=np.int64)
    sent = np.cumsum([stamps[1:] for stamps in times], axis=1)
    read = np.array([stamps[0] for stamps in times], dtype=np.int64)
    asked = np.array([record.dispatched_ns for record in records], dtype=np.int64)
    least, most = int(np.max(asked - read)), int(np.min(seen - sent))  # of our clock ahead of the server's
    return seen, sent if least <= 0 <= most else sent + (least + most) // 2


def _gap_p99_ms(stamps: _Stamps) -> float:
    return float(np.percentile(np.diff(stamps), _P99)) / _MILLI_NS


def _prompt(record: Record) -> str:
    return f"calibration {record.index}"
