"""Simulate a month of samples on SQLite and Postgres: how large the history becomes, how fast it answers.

Run: python scripts/measure_history.py [--days 30] [--databases sqlite postgres]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from ai_lab.database import Database
from ai_lab.database.setup import prepare_database
from ai_lab.telemetry.history.repository import HistoryRepository
from ai_lab.telemetry.history.retention import Retention
from ai_lab.telemetry.history.series import UNITS, Series, series
from ai_lab.telemetry.history.service import History
from scripts.measurement import Row, at_most, percentile, report
from tests.postgres import PostgresServer

_MAX_MB, _QUERY_P99_MS = 50.0, 50.0
_HOST = "measured"
_INTERVAL = 5
_HOUR = timedelta(hours=1)
_ROUNDS = 50
_PLAIN, _GPU = list(UNITS)[:14], list(UNITS)[14:18]
_LABELLED = (
    ("filesystem_free_bytes", "mountpoint", ("/", "/home")),
    ("network_receive_bytes_per_second", "interface", ("eth0", "wlan0")),
    ("network_transmit_bytes_per_second", "interface", ("eth0", "wlan0")),
    ("disk_read_bytes_per_second", "device", ("nvme0n1",)),
    ("disk_write_bytes_per_second", "device", ("nvme0n1",)),
    ("temperature_celsius", "sensor", ("package", "core 0", "core 1", "nvme")),
)
_ASKED = {"1 h": timedelta(hours=1), "24 h": timedelta(hours=24), "7 d": timedelta(days=7), "30 d": timedelta(days=30)}
# As the service writes: 30 s at a time, in the order of the key. The first sample of the hour is left to the service.
_TICKS = {
    "sqlite": "WITH RECURSIVE ticks(at) AS (SELECT :first + 5 UNION ALL SELECT at + 5 FROM ticks WHERE at + 5 < :end) ",
    "postgresql": "WITH ticks(at) AS (SELECT generate_series(:first + 5, :end - 1, 5)) ",
}
_VALUES = {"sqlite": "abs(random() % 100000) / 997.0", "postgresql": "random() * 100"}
_TABLES = ("metric_series", "metric_samples", "metric_rollups")


def main() -> int:
    """Simulate and ask; returns 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.databases:
        with _address(name) as url:
            rows += asyncio.run(_measure(url, options.days))
    notes = [
        f"{len(_typical())} series every {_INTERVAL} s for {options.days} days; rolled up and purged every hour.",
        "Size: growth of the file after a checkpoint; on Postgres the tables with their indexes, where vacuum ran",
        "every simulated hour (autovacuum looks every minute). The size at its largest, not at the end alone.",
    ]
    return report("A month of history", rows, notes)


@contextmanager
def _address(name: str) -> Iterator[URL]:
    if name == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield make_url(f"sqlite+aiosqlite:///{folder}/ai_lab.sqlite")
        return
    server = PostgresServer()
    try:
        yield make_url(server.url(server.create_database()))
    finally:
        server.stop()


async def _measure(url: URL, days: int) -> list[Row]:
    await prepare_database(url)
    database = Database(url)
    retention = Retention(interval_seconds=_INTERVAL)
    history = History(database, host=_HOST, retention=retention)
    kind = "SQLite" if database.is_sqlite else "Postgres"
    first_size = await _size(database)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    sizes, rolled, purged = [], [], []
    moment = end - timedelta(days=days)
    purging = history
    while moment < end:
        history.add(moment, dict.fromkeys(_typical(), 1.0))
        await history.flush()
        await _fill(database, int(moment.timestamp()))
        moment += _HOUR
        rolled.append(await _timed(history.roll_up(moment)))
        # By a new one each time: to one that goes on, an hour that passes in a second is a clock that was set.
        purging = History(database, host=_HOST, retention=retention)
        purged.append(await _timed(purging.purge(moment)))
        await _vacuum(database)
        if moment.hour % 6 == 0:
            sizes.append(await _size(database) - first_size)
    sizes.append(await _size(database) - first_size)
    levels = purging.levels
    rows = [
        Row(
            f"{kind}: kept", f"{levels.raw_seconds / 3600:.1f} h raw, {levels.minute_seconds / 86400:.1f} d of minutes"
        ),
        Row(f"{kind}: size at the end", f"{sizes[-1] / 1e6:.1f} MB"),
        at_most(f"{kind}: size at its largest", max(sizes) / 1e6, _MAX_MB, "MB"),
        Row(f"{kind}: roll-up of an hour", f"median {median(rolled):.1f}, max {max(rolled):.1f} ms"),
        Row(f"{kind}: purge of an hour", f"median {median(purged):.1f}, max {max(purged):.1f} ms"),
    ]
    for name, span in _ASKED.items():
        if span <= timedelta(days=days):
            asked = [await _timed(_ask(history, number, end, span)) for number in range(_ROUNDS * 2)]
            figures = f"{kind}: query of {name}, p99 (median {median(asked):.1f} ms)"
            rows.append(at_most(figures, percentile(asked, 0.99), _QUERY_P99_MS, "ms"))
    await database.close()
    return rows


async def _fill(database: Database, first: int) -> None:
    """Write the other samples of an hour."""
    kind = "sqlite" if database.is_sqlite else "postgresql"
    async with database.transaction() as db:
        await HistoryRepository(db).series_ids(_HOST, _typical())
        insert = f"INSERT INTO metric_samples (series_id, at, value) {_TICKS[kind]}SELECT id, at, {_VALUES[kind]} "
        source = "FROM ticks CROSS JOIN metric_series ORDER BY at / 30, id, at"
        await db.execute(text(insert + source), {"first": first, "end": first + 3600})


async def _ask(history: History, number: int, end: datetime, span: timedelta) -> None:
    metric = ("cpu_usage_percent", "network_receive_bytes_per_second", "temperature_celsius")[number % 3]
    found = await history.query(metric, start=end - span - timedelta(seconds=number), end=end)
    assert found.series[0].points


async def _timed(work: Awaitable[None]) -> float:
    """Return how long it took, in milliseconds."""
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1000


async def _vacuum(database: Database) -> None:
    if not database.is_sqlite:
        plain = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(plain)
        await connection.execute("VACUUM (ANALYZE) metric_samples, metric_rollups")
        await connection.close()


async def _size(database: Database) -> int:
    if database.is_sqlite:
        await database.checkpoint()
        return Path(database.url.database or "").stat().st_size  # noqa: ASYNC240 - nobody waits
    async with database.reading() as db:
        sizes = ", ".join(f"pg_total_relation_size('{table}')" for table in _TABLES)
        return sum((await db.execute(text(f"SELECT {sizes}"))).one())


def _typical() -> list[Series]:
    labelled = [series(name, {label: value}) for name, label, values in _LABELLED for value in values]
    return [*(series(name) for name in _PLAIN), *(series(name, {"gpu": "0"}) for name in _GPU), *labelled]


if __name__ == "__main__":
    sys.exit(main())
