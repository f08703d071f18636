"""Measurements of the earlier AI-Lab on their way into the history, under a machine's name of their own.

What is recent comes in as samples; of what is older the hours do (and minutes, as far back as these are kept), which
stay for good. The file is read twice: first to its end, to see what it holds and whether it is known.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import SourceDamaged
from ai_lab.importer.cleaning import Cleaner
from ai_lab.importer.repository import ImportRepository
from ai_lab.telemetry.history.repository import HOUR, IMPORTED, MINUTE, HistoryRepository
from ai_lab.telemetry.history.retention import DAY, Retention
from ai_lab.telemetry.history.series import Series, series
from ai_lab.telemetry.history.service import History

KIND = "AI-Lab measurements"
_NAME_LENGTH = 255
_ROWS_AT_ONCE = 500
_KEY = ("tier", "series", "start")


class Measured(NamedTuple):
    """A value of a metric at a second since 1970."""

    at: int
    name: str
    value: float


@dataclass(frozen=True)
class Measurements:
    """The rows of a file as (microseconds since 1970 or None, name, value), by time; ``rows`` may be called again."""

    path: Path
    rows: Callable[[], Iterable[tuple[int | None, Any, Any]]]


@dataclass
class MeasurementsFound:
    """What a file holds: ``left_out`` counts rows by the reason why they cannot come in."""

    count: int = 0
    fingerprint: str = ""
    host: str = ""
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class MeasurementsOutcome:
    """What became of a file's measurements: ``added`` is 0 where all are known."""

    added: int
    found: MeasurementsFound


def survey_measurements(source: Measurements) -> MeasurementsFound:
    """Read all rows. Raises ``SourceDamaged``."""
    found, said = MeasurementsFound(), hashlib.sha256(KIND.encode())
    for measured in _read(source, found.left_out):
        said.update(repr(tuple(measured)).encode())
        if not found.count:
            # A file that has grown is known by its first row; that of another machine is another one.
            found.host = IMPORTED + said.hexdigest()[:8]
        found.count += 1
    found.fingerprint = said.hexdigest()
    return found


async def count_new(repository: ImportRepository, found: MeasurementsFound) -> int:
    """Return how many of the measurements no import before has brought in."""
    if not found.count or await repository.imported(found.fingerprint) is not None:
        return 0
    return max(0, found.count - await repository.rows_added(KIND, found.host))


async def write_measurements(database: Database, source: Measurements, retention: Retention) -> MeasurementsOutcome:
    """Write what is new, some hundred rows at a time; one that was killed is finished by the next.

    Raises:
        SourceDamaged: the file cannot be read.
        DatabaseUnavailable: the database cannot be written.
    """
    found, moment = survey_measurements(source), now()
    async with database.reading() as db:
        added = await count_new(ImportRepository(db), found)
    if not added:
        return MeasurementsOutcome(0, found)
    for samples, rollups in _batches(_read(source, Counter()), moment, retention):
        async with database.transaction() as db:
            repository = HistoryRepository(db)
            ids = await repository.series_ids(found.host, {row["series"] for row in (*samples, *rollups)})
            if samples:
                await repository.add_samples([_numbered(row, ids) for row in samples])
            if rollups:
                await repository.add_rollups([_numbered(row, ids) for row in rollups])
    await History(database, host=found.host, retention=retention).roll_up(moment)
    noted = {
        "fingerprint": found.fingerprint,
        "kind": KIND,
        "origin": Cleaner().text(f"{source.path} performance_metrics"),
        "session_id": found.host,
        "rows_added": added,
        "imported_at": moment,
    }
    async with database.transaction() as db:
        await ImportRepository(db).remember(noted)
    return MeasurementsOutcome(added, found)


def _read(source: Measurements, left_out: Counter[str]) -> Iterator[Measured]:
    """Yield the measurements that can be kept, one for a second of a metric, by time; count the others."""
    second: int | None = None
    names: set[str] = set()
    latest = int(now().timestamp())
    try:
        for microseconds, name, value in source.rows():
            number = _number(value)
            at = None if microseconds is None else microseconds // 1_000_000
            if not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH:
                left_out[f"they have no name of at most {_NAME_LENGTH} characters"] += 1
            elif at is None or at > latest:
                left_out["their time cannot be read or lies in the future"] += 1
            elif number is None:
                left_out["their value is no number"] += 1
            else:
                if at != second:
                    second, names = at, set()
                if name in names:
                    left_out["the same second has a value already"] += 1
                else:
                    names.add(name)
                    yield Measured(at, Cleaner().text(name), number)
    except sqlite3.DatabaseError as error:
        raise SourceDamaged(f"table performance_metrics: {error}", origin=str(source.path)) from error


def _number(value: Any) -> float | None:
    """Return a value as a number: the earlier AI-Lab stored them as text, and error texts among them."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


_Rows = list[dict[str, Any]]


def _batches(measured: Iterator[Measured], moment: datetime, retention: Retention) -> Iterator[tuple[_Rows, _Rows]]:
    """Yield samples and roll-ups to write; each hour is whole in one of the two, so that neither is half of it."""
    present = int(moment.timestamp())
    raw_from = _full_hour(present - retention.raw_hours * HOUR)
    minutes_from = _full_hour(present - retention.minute_days * DAY)
    samples: _Rows = []
    rollups: _Rows = []
    for hour, group in itertools.groupby(measured, lambda row: _full_hour(row.at)):
        if hour >= raw_from:
            samples += [{"series": series(row.name), "at": row.at, "value": row.value} for row in group]
        else:
            rollups += _rolled_up(group, (MINUTE, HOUR) if hour >= minutes_from else (HOUR,))
        if len(samples) + len(rollups) >= _ROWS_AT_ONCE:
            yield samples, rollups
            samples, rollups = [], []
    if samples or rollups:
        yield samples, rollups


def _full_hour(seconds: float) -> int:
    return int(seconds // HOUR) * HOUR


def _rolled_up(group: Iterator[Measured], tiers: tuple[int, ...]) -> _Rows:
    values: dict[tuple[int, Series, int], list[float]] = defaultdict(list)
    for row in group:
        for tier in tiers:
            values[tier, series(row.name), row.at - row.at % tier].append(row.value)
    return [
        dict(zip(_KEY, key, strict=True))
        | {"count": len(found), "sum": math.fsum(found), "min": min(found), "max": max(found)}
        for key, found in values.items()
    ]


def _numbered(row: dict[str, Any], ids: dict[Series, int]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "series"} | {"series_id": ids[row["series"]]}
