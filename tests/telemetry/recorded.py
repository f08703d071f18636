"""What a history holds, read from its tables, and the same made anew from the samples alone."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, select

from ai_lab.database import Database
from ai_lab.telemetry.history.retention import Retention
from ai_lab.telemetry.history.series import Series, series
from ai_lab.telemetry.history.service import History
from ai_lab.telemetry.tables import metric_rollups, metric_samples, metric_series

CPU = series("cpu_usage_percent")
ROOT, HOME = (series("filesystem_free_bytes", {"mountpoint": point}) for point in ("/", "/home"))
RETENTION = Retention()

#: (count, sum, min, max) by (tier, series, start).
Rollups = dict[tuple[int, Series, int], tuple[int, float, float, float]]
#: Value by (series, second).
Samples = dict[tuple[Series, int], float]


@dataclass
class Recorded:
    """A database with a history in it."""

    database: Database

    def history(self, host: str = "here", retention: Retention = RETENTION) -> History:
        """Return a history as a fresh process would have it."""
        return History(self.database, host=host, retention=retention)

    async def samples(self) -> Samples:
        """Return all samples."""
        return {(_series(name, labels), at): value for name, labels, _, at, value in await self._rows(metric_samples)}

    async def rollups(self) -> Rollups:
        """Return all roll-ups."""
        return {
            (tier, _series(name, labels), start): tuple(figures)
            for name, labels, tier, _, start, *figures in await self._rows(metric_rollups)
        }

    async def _rows(self, table: Table) -> Sequence[Any]:
        chosen = select(metric_series.c.name, metric_series.c.labels, table)
        async with self.database.reading() as db:
            return (await db.execute(chosen.where(table.c.series_id == metric_series.c.id))).all()


def _series(name: str, labels: str) -> Series:
    return series(name, json.loads(labels))


def made_anew(samples: Samples, until: int) -> Rollups:
    """Return the roll-ups that samples make, of minutes and hours that are over at second ``until``."""
    values: dict[tuple[int, Series, int], list[float]] = defaultdict(list)
    for tier in (60, 3600):
        for (name, at), value in sorted(samples.items()):
            if at - at % tier + tier <= until:
                values[tier, name, at - at % tier].append(value)
    return {key: (len(found), math.fsum(found), min(found), max(found)) for key, found in values.items()}


def assert_same(found: Rollups, expected: Rollups) -> None:
    """Compare: all exactly, but sums only up to the last digits, which depend on the order of adding."""
    assert found.keys() == expected.keys()
    for key, (count, total, low, high) in expected.items():
        assert found[key][0] == count, key
        assert math.isclose(found[key][1], total, rel_tol=1e-12, abs_tol=1e-9), key
        assert found[key][2:] == (low, high), key


def moment(seconds: float) -> datetime:
    """Return the time ``seconds`` after the begin of all tests: a full hour some time ago."""
    return BEGIN + timedelta(seconds=seconds)


_PRESENT = datetime.now(UTC)
BEGIN = _PRESENT.replace(minute=0, second=0, microsecond=0) - timedelta(hours=20)
BEGIN_AT = int(BEGIN.timestamp())
