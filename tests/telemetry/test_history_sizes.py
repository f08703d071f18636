import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.database.setup import prepare_database
from ai_lab.settings import Settings
from ai_lab.telemetry.history.query import known_metrics
from ai_lab.telemetry.history.reading_repository import HistoryReader
from ai_lab.telemetry.history.repository import HistoryRepository
from ai_lab.telemetry.history.retention import POSTGRES_BYTES, SQLITE_BYTES, Retention
from ai_lab.telemetry.history.series import UNITS, series, unit_of, values_of
from tests.telemetry.recorded import BEGIN_AT, CPU, Recorded, moment
from tests.telemetry.samples import snapshot_of

HOUR, DAY, MB = 3600, 86400, 1_000_000
SERIES = [series("temperature_celsius", {"sensor": str(number)}) for number in range(20)]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    yield database
    await database.close()


def month_bytes(retention: Retention, series_count: int, *, is_sqlite: bool) -> float:
    levels = retention.fitted(series_count, is_sqlite=is_sqlite)
    sample, rollup = SQLITE_BYTES if is_sqlite else POSTGRES_BYTES
    rows = levels.raw_seconds / retention.interval_seconds, (levels.minute_seconds / 60 + 30 * 24)
    return series_count * (rows[0] * sample + rows[1] * rollup)


@pytest.mark.parametrize("is_sqlite", [True, False])
@pytest.mark.parametrize("interval_seconds", [1, 5, 60])
def test_a_month_fits_its_room(*, is_sqlite: bool, interval_seconds: float) -> None:
    retention = Retention(interval_seconds=interval_seconds)
    before = retention.fitted(1, is_sqlite=is_sqlite)
    assert before.raw_seconds == DAY
    for series_count in range(1, 121):
        levels = retention.fitted(series_count, is_sqlite=is_sqlite)
        assert levels.raw_seconds <= before.raw_seconds
        assert levels.minute_seconds <= before.minute_seconds
        assert HOUR <= levels.raw_seconds <= levels.minute_seconds <= levels.hour_seconds == 730 * DAY
        assert (
            month_bytes(retention, series_count, is_sqlite=is_sqlite) <= 50.01 * MB or levels.minute_seconds == 4 * HOUR
        )
        before = levels


def test_minutes_go_first_but_not_those_that_queries_need() -> None:
    levels = Retention().fitted(40, is_sqlite=True)
    assert levels.raw_seconds == DAY
    assert 4 * DAY < levels.minute_seconds < 14 * DAY
    levels = Retention().fitted(40, is_sqlite=False)
    assert HOUR < levels.raw_seconds < DAY


def test_the_settings_say_what_is_kept() -> None:
    assert Retention.of(Settings()) == Retention()


async def test_rows_are_no_larger_than_reckoned_with(database: Database) -> None:
    """Of each level at the place that the retention is reckoned with, after writing as a server does."""
    history = Recorded(database).history()
    before = await size_of(database)
    for second in range(0, 3 * HOUR, 5):
        history.add(
            moment(second), {name: 20 + (second * 7919 + number) % 997 / 13 for number, name in enumerate(SERIES)}
        )
        if second % 30 == 0:
            await history.flush()
    await history.flush()
    samples = 3 * HOUR // 5 * len(SERIES)
    after = await size_of(database)
    sample_bytes, rollup_bytes = SQLITE_BYTES if database.is_sqlite else POSTGRES_BYTES
    assert (after - before) / samples <= sample_bytes
    await fill_minutes(database, minutes=2000)
    assert (await size_of(database) - after) / (2000 * len(SERIES)) <= rollup_bytes


async def fill_minutes(database: Database, *, minutes: int) -> None:
    names = ("tier", "series_id", "start", "count", "sum", "min", "max")
    async with database.transaction() as db:
        repository = HistoryRepository(db)
        ids = await repository.series_ids("here", SERIES)
        for minute in range(minutes):
            figures = (12, minute * 1.1, minute * 0.7, minute * 1.3)
            rows = [(60, number, BEGIN_AT + minute * 60, *figures) for number in ids.values()]
            await repository.add_rollups([dict(zip(names, row, strict=True)) for row in rows])


async def size_of(database: Database) -> int:
    if not database.is_sqlite:
        async with database.reading() as db:
            sizes = "pg_total_relation_size('metric_samples') + pg_total_relation_size('metric_rollups')"
            size = await db.execute(text(f"SELECT {sizes}"))
            return int(size.scalar_one())
    async with database.reading() as db:
        pages = await db.execute(
            text("SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count")
        )
        return int(pages.scalar_one()) * 4096


async def test_a_new_file_gives_room_back_after_a_purge(tmp_path: Path) -> None:
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/ai_lab.sqlite")
    await prepare_database(url)
    database = Database(url)
    await fill_minutes(database, minutes=3000)
    history = Recorded(database).history()
    await database.checkpoint()
    before = (tmp_path / "ai_lab.sqlite").stat().st_size
    await history.purge(moment(900 * DAY))
    await database.checkpoint()
    after = (tmp_path / "ai_lab.sqlite").stat().st_size
    assert before > 2_000_000
    assert after < before - 500_000
    await database.close()


async def test_a_file_that_cannot_shrink_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "ai_lab.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")  # as files of earlier versions were begun
        db.execute("CREATE TABLE filling (content)")
        db.executemany("INSERT INTO filling VALUES (?)", [("x" * 4000,)] * 2000)
        db.commit()
        db.execute("DELETE FROM filling")
        db.commit()
    database = Database(make_url(f"sqlite+aiosqlite:///{path}"))
    assert await database.give_back_pages() == 0
    await database.close()


def test_what_is_remembered_of_a_sample_has_a_unit_and_a_value() -> None:
    values = values_of(snapshot_of(gpu_celsius=50.0).metrics)
    assert {name for name, _ in values} <= set(UNITS)
    assert values[CPU] == snapshot_of().metrics.cpu_usage_percent
    assert values[series("gpu_temperature_celsius", {"gpu": "0"})] == 50.0
    assert series("gpu_power_watts", {"gpu": "0"}) not in values  # not measurable there
    assert list(values)[:3] == [CPU, series("memory_usage_percent"), series("memory_usage_bytes")]


def test_units_of_imported_names_come_from_their_endings() -> None:
    assert [unit_of(name) for name in ("gpu_memory_used_mb", "gpu_temperature_c", "disk_percent", "what")] == [
        "mebibytes",
        "celsius",
        "percent",
        "",
    ]


async def test_a_database_without_history_knows_no_metrics(database: Database) -> None:
    async with database.reading() as db:
        assert await known_metrics(HistoryReader(db)) == []
