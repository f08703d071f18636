import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.telemetry.history.retention import Retention
from ai_lab.telemetry.history.schemas import MetricHistory
from ai_lab.telemetry.history.service import History
from tests.importer.import_lab import ImportLab

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = NOW.replace(minute=0, second=0)
LONG_AGO = datetime(2023, 5, 1, 10, tzinfo=UTC)


@pytest.fixture
def old(lab: ImportLab) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(lab.source / "ai_lab.db")) as db:
        db.execute(
            "CREATE TABLE performance_metrics "
            "(id TEXT PRIMARY KEY, metric_name TEXT, metric_value TEXT, timestamp DATETIME, session_id TEXT)"
        )
        yield db


def insert(db: sqlite3.Connection, *rows: tuple[Any, Any, datetime | str | None]) -> None:
    said = [(name, value, str(at.replace(tzinfo=None)) if isinstance(at, datetime) else at) for name, value, at in rows]
    db.executemany("INSERT INTO performance_metrics (metric_name, metric_value, timestamp) VALUES (?, ?, ?)", said)
    db.commit()


def bring_in(lab: ImportLab, *arguments: str) -> dict[str, Any]:
    return lab.report("--from-database", str(lab.source / "ai_lab.db"), *arguments)


def ask(lab: ImportLab, metric: str, start: datetime, end: datetime, step_seconds: int) -> MetricHistory:
    async def answer() -> MetricHistory:
        database = Database(make_url(lab.url), pooled=False)
        try:
            history = History(database, host="here", retention=Retention())
            return await history.query(metric, start=start, end=end, step_seconds=step_seconds)
        finally:
            await database.close()

    return asyncio.run(answer())


def held(lab: ImportLab) -> dict[str, Any]:
    """Return what the tables hold."""

    async def read() -> dict[str, Any]:
        database = Database(make_url(lab.url), pooled=False)
        async with database.reading() as db:
            names = ("metric_series", "metric_samples", "metric_rollups")
            found = {name: (await db.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2, 3"))).all() for name in names}  # noqa: S608 - ours
        await database.close()
        return found

    return asyncio.run(read())


def minutes(start: datetime, count: int) -> list[tuple[str, str, datetime]]:
    return [("cpu_usage_percent", str(number), start + timedelta(minutes=number)) for number in range(count)]


def test_recent_ones_come_in_as_samples_and_old_ones_as_hours(lab: ImportLab, old: sqlite3.Connection) -> None:
    recent, last_week = HOUR - timedelta(hours=3), HOUR - timedelta(days=7)
    insert(old, *minutes(LONG_AGO, 120), *minutes(last_week, 60), *minutes(recent, 60))
    report = bring_in(lab)
    assert (report["complete"], report["totals"]["measurements"], report["totals"]["warnings"]) == (True, 240, 0)
    for start, step, count in ((LONG_AGO, 3600, 2), (last_week, 60, 60), (last_week, 3600, 1), (recent, 5, 60)):
        answer = ask(lab, "cpu_usage_percent", start, start + timedelta(hours=2), step)
        (found,) = answer.series
        assert (answer.step_seconds, len(found.points)) == (step, count)
        assert found.hosts[0].startswith("imported-")
        assert found.points[0][0] == int(start.timestamp())
    hours = ask(lab, "cpu_usage_percent", LONG_AGO, LONG_AGO + timedelta(hours=2), 3600).series[0].points
    assert [point[1:] for point in hours] == [(29.5, 0.0, 59.0), (89.5, 60.0, 119.0)]
    assert ask(lab, "cpu_usage_percent", recent, recent + timedelta(hours=1), 3600).series[0].points[0][1] == 29.5


def test_a_second_run_adds_nothing(lab: ImportLab, old: sqlite3.Connection) -> None:
    insert(old, *minutes(LONG_AGO, 90), *minutes(HOUR - timedelta(hours=2), 30))
    bring_in(lab)
    before = held(lab)
    report = bring_in(lab)
    assert (report["totals"]["measurements"], report["totals"]["skipped"]) == (0, 1)
    assert "Nothing new came in" in lab.out
    assert held(lab) == before


def test_of_a_file_that_has_grown_the_rest_comes_in(lab: ImportLab, old: sqlite3.Connection) -> None:
    insert(old, *minutes(LONG_AGO, 90))
    bring_in(lab)
    insert(old, *minutes(LONG_AGO + timedelta(minutes=90), 30))
    assert bring_in(lab)["totals"]["measurements"] == 30
    points = ask(lab, "cpu_usage_percent", LONG_AGO, LONG_AGO + timedelta(hours=2), 3600).series[0].points
    assert [point[1] for point in points] == [29.5, (sum(range(60, 90)) + sum(range(30))) / 60]
    assert bring_in(lab)["totals"]["measurements"] == 0


def test_files_of_two_machines_are_told_apart(lab: ImportLab, old: sqlite3.Connection) -> None:
    insert(old, *minutes(LONG_AGO, 60))
    bring_in(lab)
    old.execute("DELETE FROM performance_metrics")
    insert(old, *minutes(LONG_AGO + timedelta(seconds=7), 60))
    bring_in(lab)
    (found,) = ask(lab, "cpu_usage_percent", LONG_AGO, LONG_AGO + timedelta(hours=1), 3600).series
    assert len(found.hosts) == 2


def test_what_cannot_be_kept_is_counted_with_its_reason(lab: ImportLab, old: sqlite3.Connection) -> None:
    good = ("cpu", " 12.5 ", LONG_AGO)
    insert(
        old,
        good,
        ("cpu", "error: could not read", LONG_AGO + timedelta(seconds=1)),
        ("cpu", "nan", LONG_AGO + timedelta(seconds=2)),
        ("cpu", None, LONG_AGO + timedelta(seconds=3)),
        ("cpu", "13", LONG_AGO),
        ("cpu", "1", "yesterday"),
        ("cpu", "1", None),
        ("cpu", "1", NOW + timedelta(days=400)),
        ("", "1", LONG_AGO),
        (None, "1", LONG_AGO),
        ("x" * 256, "1", LONG_AGO),
    )
    report = bring_in(lab)
    assert (report["totals"]["measurements"], report["totals"]["warnings"], report["complete"]) == (1, 10, True)
    assert sorted(report["sources"][0]["remarks"]) == [
        "performance_metrics: 1 measurements were left out: the same second has a value already",
        "performance_metrics: 3 measurements were left out: their time cannot be read or lies in the future",
        "performance_metrics: 3 measurements were left out: their value is no number",
        "performance_metrics: 3 measurements were left out: they have no name of at most 255 characters",
    ]
    assert "could not read" not in lab.out
    assert ask(lab, "cpu", LONG_AGO, LONG_AGO + timedelta(hours=1), 3600).series[0].points[0][1:] == (12.5, 12.5, 12.5)


def test_a_rehearsal_says_what_would_come_in_and_writes_nothing(lab: ImportLab, old: sqlite3.Connection) -> None:
    insert(old, *minutes(LONG_AGO, 70), ("cpu", "broken", LONG_AGO))
    rehearsed = bring_in(lab, "--dry-run")
    assert held(lab) == {"metric_series": [], "metric_samples": [], "metric_rollups": []}
    done = bring_in(lab)
    assert rehearsed["totals"] == done["totals"]
    assert done["totals"]["measurements"] == 70
    assert bring_in(lab, "--dry-run")["totals"]["measurements"] == 0


def test_numbers_that_are_stored_as_numbers_come_in_too(lab: ImportLab, old: sqlite3.Connection) -> None:
    old.executescript("""
        DROP TABLE performance_metrics;
        CREATE TABLE performance_metrics (Metric_Name, METRIC_VALUE REAL, timestamp);
        INSERT INTO performance_metrics VALUES ('a', 1.5, 1682935200), ('a', 2, 1682935201.5), (x'ff00', 3, 1682935202);
    """)
    assert bring_in(lab)["totals"]["measurements"] == 3
    assert ask(lab, "a", LONG_AGO, LONG_AGO + timedelta(hours=1), 3600).series[0].points[0][1] == 1.75


def test_hours_that_were_imported_stay_for_good(lab: ImportLab, old: sqlite3.Connection) -> None:
    insert(old, *minutes(LONG_AGO, 60))  # longer ago than hours are kept
    bring_in(lab)
    before = held(lab)

    async def purge() -> None:
        database = Database(make_url(lab.url), pooled=False)
        await History(database, host="here", retention=Retention()).purge(NOW)
        await database.close()

    asyncio.run(purge())
    assert held(lab) == before
    assert before["metric_rollups"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_damaged_table_is_told_and_keeps_nothing_else_out(lab: ImportLab, old: sqlite3.Connection) -> None:
    insert(old, *minutes(LONG_AGO, 3000))
    old.execute("CREATE TABLE conversations (session_id, role, content)")
    old.execute("INSERT INTO conversations VALUES ('s', 'user', 'hello')")
    old.commit()
    ((root, size),) = old.execute(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'performance_metrics'"
    )
    old.close()
    path = lab.source / "ai_lab.db"
    data = bytearray(path.read_bytes())
    data[(root - 1) * size : root * size] = b"\xab" * size
    path.write_bytes(data)
    report = bring_in(lab)
    assert (report["complete"], report["totals"]["measurements"]) == (False, 0)
    assert "table performance_metrics: database disk image is malformed" in lab.out
    assert lab.said("s") == [("user", "hello")]
