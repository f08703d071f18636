"""Percentiles of ``/performance/summary`` against exact ones, what recording costs, and how long a summary takes.

A million durations go the whole way: recorded, flushed in slots, summed up, read back, merged.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.database.setup import prepare_database
from ai_lab.telemetry.operations.repository import TIERS, OperationRepository
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.slot import Kind, OperationSlot
from ai_lab.telemetry.operations.store import KEPT_SECONDS, OperationStore
from ai_lab.telemetry.operations.summary import PerformanceSummary, summarize
from scripts.measurement import Row, at_most, percentile, report, spread

_HOUR, _DAY = 3600, 86400
_CHANCE = random.Random(20261121)  # noqa: S311 - no secret
_ERROR_PERCENT = 2.0
_RECORD_US = 3.0
_SUMMARY_MS = 100.0
_ROUNDS = 9
_STORED_MB = 10.0
#: A busy server over a month: this many operations, each called so often in every ten seconds.
_STORED_NAMES, _STORED_CALLS = 40, 5

DISTRIBUTIONS: dict[str, Callable[[], float]] = {
    "lognormal": lambda: _CHANCE.lognormvariate(-4, 1.5),
    "uniform": lambda: _CHANCE.uniform(0.001, 0.2),
    "exponential": lambda: _CHANCE.expovariate(20),
    "two peaks": lambda: _CHANCE.gauss(0.002, 0.0001) if _CHANCE.random() < 0.9 else _CHANCE.gauss(3, 0.1),
}
#: A busy server: what ran within every ten seconds for a month, with how many calls of each.
OPERATIONS: list[tuple[Kind, str]] = [
    *(("http", f"GET /route-{number}/{{id}}") for number in range(30)),
    *(("database", name) for name in ("select", "insert", "update", "delete", "read", "transaction", "write_wait")),
    *(("provider", f"provider/model-{number}") for number in range(7)),
    *(("function", f"function {number}") for number in range(6)),
]
_CALLS = 40


class _Clock:
    """A wall clock that is also the monotonic one."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=1_000_000, help="durations in all (default: %(default)s)")
    parser.add_argument("--days", type=int, default=32, help="days of full slots to read from (default: %(default)s)")
    parser.add_argument("--database-url", help="default: a new SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_measure(options, folder))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    notes = [
        f"percentiles: {options.values} durations of {len(DISTRIBUTIONS)} distributions over 26 h, exact by sorting",
        f"full slots: {len(OPERATIONS)} operations, {_CALLS} calls of each in every ten seconds, for {options.days} d",
        f"busy month: {_STORED_NAMES} operations, {_STORED_CALLS} calls of each in every ten seconds",
        f"peak memory of this program: {memory:.0f} MiB",
    ]
    return report("operations: percentiles, cost of recording, time of a summary", rows, notes)


async def _measure(options: argparse.Namespace, folder: str) -> list[Row]:
    rows = [_cost_of_recording(), await _room_of_a_month(folder)]
    for name, work in (("percentiles", _percentiles), ("full", _full_slots)):
        address = options.database_url or f"sqlite+aiosqlite:///{Path(folder) / name}.sqlite"
        url = make_url(address)
        await prepare_database(url)
        database = Database(url)
        try:
            rows += await work(database, options)
        finally:
            await database.close()
    return rows


def _cost_of_recording() -> Row:
    operations = Operations()
    seconds = [_CHANCE.lognormvariate(-4, 1.5) for _ in range(100_000)]
    costs = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for one in seconds:
            operations.record("http", "GET /conversations/{session_id}", one)
        costs.append((time.process_time() - began) / len(seconds) * 1e6)
    return at_most("record(), CPU time of a call, median of 9 x 100,000", median(costs), _RECORD_US, "us", 2)


async def _percentiles(database: Database, options: argparse.Namespace) -> list[Row]:
    """Spread all values over 26 hours and read the last 24 of them back."""
    end = float(int(time.time()) // _DAY * _DAY - _DAY + 4321)
    clock = _Clock(end - 26 * _HOUR)
    operations = Operations(clock=clock, monotonic=clock)
    store = OperationStore(operations, database)
    recorded: dict[str, list[tuple[float, float]]] = {name: [] for name in DISTRIBUTIONS}
    names, step = list(DISTRIBUTIONS), 26 * _HOUR / options.values
    for number in range(options.values):
        name = names[number % len(names)]
        seconds = DISTRIBUTIONS[name]()
        operations.record("function", name, seconds)
        recorded[name].append((clock.at, seconds))
        clock.at += step
        if number % 2000 == 0:
            await store.flush()
        if number % 50_000 == 0:
            await store.roll_up(clock.at)
    await store.purge(clock.at)
    summary = summarize(await store.window(clock.at - 24 * _HOUR, clock.at), uptime_seconds=0)
    worst, wrong = _compared(summary, recorded)
    return [
        at_most("p50, p90, p95, p99 of 24 h: largest error", worst, _ERROR_PERCENT, "%", 3),
        Row("counts that are not exact", str(wrong), "0", wrong == 0),
        Row(
            "time covered", f"{summary.window.coverage_percent} %", ">= 99.9 %", summary.window.coverage_percent >= 99.9
        ),
    ]


def _compared(summary: PerformanceSummary, recorded: dict[str, list[tuple[float, float]]]) -> tuple[float, int]:
    since = summary.window.start.timestamp()
    worst, wrong = 0.0, 0
    for row in summary.functions:
        inside = [seconds * 1000 for at, seconds in recorded[row.name] if at >= since]
        wrong += row.count != len(inside)
        for share, found in ((0.5, row.p50_ms), (0.9, row.p90_ms), (0.95, row.p95_ms), (0.99, row.p99_ms)):
            exact = percentile(inside, share)
            worst = max(worst, abs((found or 0.0) - exact) / exact * 100)
    return worst, wrong + len(DISTRIBUTIONS) - len(summary.functions)


async def _full_slots(database: Database, options: argparse.Namespace) -> list[Row]:
    """Store what a very busy server leaves, not yet purged: hours for a month, ten seconds for two days; then ask."""
    end = int(time.time()) // _DAY * _DAY - _DAY + 50_001
    await _store(
        database,
        3600,
        range((end - options.days * _DAY) // _HOUR * _HOUR, (end - 2 * _DAY) // _HOUR * _HOUR, _HOUR),
        _full_slots_of(3600, 25),  # more calls change little, and drawing them would take an hour
    )
    await _store(database, 10, range((end - 2 * _DAY) // _HOUR * _HOUR, end // 10 * 10, 10), _full_slots_of(10, 1))
    store = OperationStore(Operations(clock=_Clock(end), monotonic=_Clock(0.0)), database)
    began = time.perf_counter()
    await store.roll_up(end)
    summing_seconds = time.perf_counter() - began

    async def ask(hours: float) -> PerformanceSummary:
        window = await store.window(end - hours * _HOUR, end)
        return await asyncio.to_thread(summarize, window, uptime_seconds=0)

    rows = [Row("summing up two days at once", f"{summing_seconds:.1f} s")]
    for hours, limit_ms in ((1.0, _SUMMARY_MS), (24.0, _SUMMARY_MS), (720.0, 10 * _SUMMARY_MS)):
        took = await _timed(lambda hours=hours: ask(hours))  # type: ignore[misc]  # mypy cannot infer a default
        rows.append(Row(f"summary of {hours:g} h", spread(took, "ms"), f"<= {limit_ms:g} ms", median(took) <= limit_ms))
    return rows


async def _room_of_a_month(folder: str) -> Row:
    """Store what the purge leaves of a busy month in an SQLite file of its own, and see by how much it grows."""
    url = make_url(f"sqlite+aiosqlite:///{Path(folder) / 'month'}.sqlite")
    await prepare_database(url)
    database = Database(url)

    async def size() -> int:
        async with database.reading() as db:
            pages = text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
            return int((await db.execute(pages)).scalar_one())

    try:
        before, end = await size(), int(time.time()) // _DAY * _DAY
        for tier, kept_seconds in KEPT_SECONDS.items():
            starts = range(end - min(kept_seconds, 30 * _DAY), end, tier)
            calls = _STORED_CALLS * tier // TIERS[0]
            await _store(database, tier, starts, [_slot(tier, calls, OPERATIONS[:_STORED_NAMES]) for _ in range(3)])
        return at_most("room of a busy month on SQLite", (await size() - before) / 1e6, _STORED_MB, "MB", 1)
    finally:
        await database.close()


def _full_slots_of(tier: int, times: int) -> list[OperationSlot]:
    return [_slot(tier, _CALLS * times, OPERATIONS) for _ in range(20)]


async def _store(database: Database, tier: int, starts: range, slots: list[OperationSlot]) -> None:
    """Store one of a few slots for each start; drawing every one anew would take an hour."""
    patterns = [slot.encode() for slot in slots]
    for first in range(0, len(starts), 500):
        rows = [
            {"tier": tier, "start": start, "writer_id": "server", "counts": _CHANCE.choice(patterns)}
            for start in starts[first : first + 500]
        ]
        async with database.transaction() as db:
            await OperationRepository(db).add(rows)


def _slot(tier: int, calls: int, names: list[tuple[Kind, str]]) -> OperationSlot:
    slot = OperationSlot()
    for number, (kind, name) in enumerate(names):
        timing = slot.timing(kind, name)
        for _ in range(calls):
            timing.durations.record(_CHANCE.lognormvariate(-6 + number / 10, 0.7))
    slot.covered_seconds = float(tier)
    return slot


async def _timed(ask: Callable[[], Awaitable[PerformanceSummary]]) -> list[float]:
    took = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        summary = await ask()
        took.append((time.perf_counter() - began) * 1000)
        assert summary.http.requests > 0
        assert summary.timestamp <= datetime.now(UTC)
    return took


if __name__ == "__main__":
    raise SystemExit(main())
