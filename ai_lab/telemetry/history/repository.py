"""All SQL of the history of measurements. Times are whole seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import insert_into
from ai_lab.telemetry.history.series import Series, unit_of
from ai_lab.telemetry.tables import metric_rollups, metric_samples, metric_series

MINUTE, HOUR = 60, 3600
#: Begin of the machine names that imported measurements get.
IMPORTED = "imported-"
_KEY = ("tier", "series_id", "start")
_FIGURES = ("count", "sum", "min", "max")


class HistoryRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def series_ids(self, host: str, wanted: Iterable[Series]) -> dict[Series, int]:
        """Return the ids of the series of a machine, adding those that are new."""
        texts = {series: series.labels_text() for series in wanted}
        known = await self._ids(host)
        new = [series for series, text in texts.items() if (series.name, text) not in known]
        if new:
            rows = [
                {"host": host, "name": series.name, "labels": texts[series], "unit": unit_of(series.name)}
                for series in new
            ]
            await self._db.execute(insert_into(self._db, metric_series).on_conflict_do_nothing(), rows)
            known = await self._ids(host)
        return {series: known[series.name, text] for series, text in texts.items()}

    async def _ids(self, host: str) -> dict[tuple[str, str], int]:
        columns = metric_series.c
        found = await self._db.execute(select(columns.name, columns.labels, columns.id).where(columns.host == host))
        return {(name, labels): number for name, labels, number in found}

    async def add_samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert samples (series_id, at, value); a second that a series has a sample of stays as it is."""
        await self._db.execute(insert_into(self._db, metric_samples).on_conflict_do_nothing(), rows)

    async def add_rollups(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert roll-ups that were made elsewhere, under the rule of ``roll_up``."""
        await self._db.execute(self._unless_more(insert_into(self._db, metric_rollups)), rows)

    async def roll_up(self, tier: int, start: int, end: int, series_id: int | None = None) -> None:
        """Make the roll-ups of ``[start, end)``, whole windows, anew from the level below: of all series or of one."""
        if tier == MINUTE:
            source, begins = metric_samples, metric_samples.c.at
            value = metric_samples.c.value
            figures: Sequence[Any] = (func.count(), func.sum(value), func.min(value), func.max(value))
        else:
            source, begins = metric_rollups, metric_rollups.c.start
            lower = metric_rollups.c
            figures = (func.sum(lower["count"]), func.sum(lower["sum"]), func.min(lower["min"]), func.max(lower["max"]))
        window = step_of(begins, tier)
        chosen = (
            select(literal_column(str(tier)), metric_series.c.id, window, *figures)
            # The series first, then their rows in the range: there is no index by time alone.
            .select_from(metric_series.join(source, source.c.series_id == metric_series.c.id))
            .where(begins >= start, begins < end)
            .group_by(metric_series.c.id, window)
            .order_by(metric_series.c.id, window)  # two processes that do this at once never wait for each other
        )
        if tier == HOUR:
            chosen = chosen.where(metric_rollups.c.tier == MINUTE)
        if series_id is not None:
            chosen = chosen.where(metric_series.c.id == series_id)
        columns = [metric_rollups.c[name] for name in (*_KEY, *_FIGURES)]
        await self._db.execute(self._unless_more(insert_into(self._db, metric_rollups).from_select(columns, chosen)))

    @staticmethod
    def _unless_more(statement: Any) -> Any:
        """Replace a roll-up only by one of more samples: what it was made of may have been deleted since."""
        new = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=list(_KEY),
            set_={name: new[name] for name in _FIGURES},
            where=new["count"] > metric_rollups.c["count"],
        )

    async def hours_with_samples(self) -> list[int]:
        """Return the start of every hour that there are samples of."""
        found = await self._db.execute(select(step_of(metric_samples.c.at, HOUR)).distinct())
        return sorted(found.scalars())

    async def active_series(self, since: int) -> tuple[int, int]:
        """Return how many series have samples after ``since``, and on how many machines."""
        has_samples = (
            select(1).where(metric_samples.c.series_id == metric_series.c.id, metric_samples.c.at >= since).exists()
        )
        counts = select(func.count(), func.count(metric_series.c.host.distinct())).where(has_samples)
        series_count, host_count = (await self._db.execute(counts)).one()
        return series_count, host_count

    async def oldest(self, tier: int) -> dict[int, int]:
        """Return the time of the oldest row of each series that has one and may lose it; tier 0 are the samples."""
        first = oldest_row(tier)
        chosen = select(metric_series.c.id, first).where(first.is_not(None))
        if tier == HOUR:  # the hours of what was imported are all there is of it, and become no more
            chosen = chosen.where(metric_series.c.host.not_like(f"{IMPORTED}%"))
        found = await self._db.execute(chosen)
        return {number: at for number, at in found}  # noqa: C416 - rows are no tuples of two for the type checker

    async def oldest_of(self, tier: int, series_id: int) -> int | None:
        """Return the time of the oldest row of one series."""
        first: int | None = (
            await self._db.execute(select(oldest_row(tier)).where(metric_series.c.id == series_id))
        ).scalar()
        return first

    async def delete(self, tier: int, series_id: int, end: int) -> None:
        """Delete the rows of one series and level before ``end``; tier 0 are the samples."""
        samples, rollups = metric_samples.c, metric_rollups.c
        if tier:
            rows = delete(metric_rollups).where(rollups.tier == tier, rollups.series_id == series_id)
            await self._db.execute(rows.where(rollups.start < end))
        else:
            await self._db.execute(delete(metric_samples).where(samples.series_id == series_id, samples.at < end))

    async def delete_empty_series(self) -> None:
        """Delete the series that nothing is left of."""
        samples = select(1).where(metric_samples.c.series_id == metric_series.c.id).exists()
        rollups = [
            select(1).where(metric_rollups.c.tier == tier, metric_rollups.c.series_id == metric_series.c.id).exists()
            for tier in (MINUTE, HOUR)
        ]
        await self._db.execute(delete(metric_series).where(~samples, *(~level for level in rollups)))


def step_of(moment: ColumnElement[int], seconds: int) -> ColumnElement[int]:
    """Return the start of the step that ``moment`` lies in; written out, because Postgres compares GROUP BY by text."""
    return moment - moment % literal_column(str(int(seconds)))


def oldest_row(tier: int) -> ColumnElement[int | None]:
    """Return the first time of the series of the surrounding query: one step into its key."""
    if not tier:
        chosen = select(func.min(metric_samples.c.at)).where(metric_samples.c.series_id == metric_series.c.id)
    else:
        columns = metric_rollups.c
        chosen = select(func.min(columns.start)).where(columns.tier == tier, columns.series_id == metric_series.c.id)
    return chosen.correlate(metric_series).scalar_subquery()
