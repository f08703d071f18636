"""All SQL of questions to the history. Times are whole seconds since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, func, literal, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import every
from ai_lab.telemetry.history.repository import HOUR, MINUTE, oldest_row
from ai_lab.telemetry.tables import metric_rollups, metric_samples, metric_series

_FIGURES = ("count", "sum", "min", "max")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is read: the steps of ``[start, end)`` from ``tier`` (0: samples), in seconds."""

    start: int
    end: int
    tier: int
    step: int
    sample_seconds: int


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of some series on one level (0: samples) of ``[since, until)``."""

    level: int
    ids: Sequence[int]
    since: int
    until: int


class Step(NamedTuple):
    """The samples of one step, from its ``start`` on; ``first`` and ``last`` say from when to when there are any."""

    start: int
    mean: float
    min: float
    max: float
    first: int
    last: int


class Figures(NamedTuple):
    """What samples come to."""

    mean: float
    min: float
    max: float


class HistoryReader:
    """Statements of one snapshot."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def metrics(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return name, unit, labels, host and id of every series, or of those of one metric, in order."""
        columns = metric_series.c
        chosen = select(metric_series).order_by(columns.name, columns.labels, columns.host)
        return every(await self._db.execute(chosen if name is None else chosen.where(columns.name == name)))

    async def names(self) -> set[str]:
        """Return the names of all metrics."""
        return set((await self._db.execute(select(metric_series.c.name).distinct())).scalars())

    async def reaches_further_back(self, ids: Sequence[int], tier: int, start: int, end: int) -> bool:
        """Return whether a level above ``tier`` knows of a time in ``[start, end)`` that ``tier`` knows nothing of."""
        first = func.coalesce(oldest_row(tier), end)
        columns = metric_rollups.c
        older = [
            select(1)
            .where(columns.tier == above, columns.series_id == metric_series.c.id)
            .where(columns.start >= start, columns.start < end, columns.start <= first - above)
            .exists()
            for above in (MINUTE, HOUR)
            if above > tier
        ]
        for exists in older:
            if (await self._db.execute(select(1).where(metric_series.c.id.in_(ids), exists).limit(1))).first():
                return True
        return False

    async def parts(self, ids: Sequence[int], tier: int, begin: int, end: int) -> list[Part]:
        """Return where the rows of ``[begin, end)`` lie: on this level, and below it for what is not rolled up yet."""
        parts, levels = [Part(tier, ids, begin, end)], [level for level in (HOUR, MINUTE) if level <= tier]
        if not levels:
            return parts
        columns = metric_rollups.c
        newest = [
            select(func.max(columns.start))
            .where(columns.tier == level, columns.series_id == metric_series.c.id)
            .where(columns.start >= literal(begin, BigInteger), columns.start < literal(end, BigInteger))
            .scalar_subquery()
            for level in levels
        ]
        below: dict[tuple[int, int], list[int]] = {}
        rows = await self._db.execute(select(metric_series.c.id, *newest).where(metric_series.c.id.in_(ids)))
        for series_id, *starts in rows:
            since = begin
            for level, start in zip(levels, starts, strict=True):
                since = since if start is None else start + level
                below.setdefault((0 if level == MINUTE else MINUTE, since), []).append(series_id)
        # One part for all series that are rolled up equally far, as they are nearly always.
        return parts + [Part(level, group, since, end) for (level, since), group in below.items() if since < end]

    async def parts_within(self, ids: Sequence[int], tier: int, begin: int, end: int) -> list[Part]:
        """Return the parts of ``[begin, end)`` without anything outside: at its ends, the rows of the levels below."""
        if begin >= end:
            return []
        if not tier:
            return [Part(0, ids, begin, end)]
        first, last, lower = begin + -begin % tier, end - end % tier, 0 if tier == MINUTE else MINUTE
        if first >= last:
            return await self.parts_within(ids, lower, begin, end)
        return [
            *await self.parts_within(ids, lower, begin, first),
            *await self.parts(ids, tier, first, last),
            *await self.parts_within(ids, lower, last, end),
        ]

    async def figures(self, parts: Sequence[Part], asked: Asked) -> Figures | None:
        """Return what all samples come to together; None where there are none."""
        columns = _rows(parts, asked).c
        count, *figures = (
            await self._db.execute(
                select(
                    func.sum(columns["count"]),
                    func.sum(columns["sum"]) / func.sum(columns["count"]),
                    func.min(columns["min"]),
                    func.max(columns["max"]),
                )
            )
        ).one()
        return Figures(*figures) if count else None

    async def points(self, parts: Sequence[Part], asked: Asked) -> dict[str, list[Step]]:
        """Return, by labels, the steps that have samples, all machines in one, in order."""
        rows = _rows(parts, asked)
        columns = rows.c
        statement = (
            select(
                columns.labels,
                columns.step,
                func.sum(columns["sum"]) / func.sum(columns["count"]),
                func.min(columns["min"]),
                func.max(columns["max"]),
                func.min(columns.start),
                func.max(columns.end),
            )
            .group_by(columns.labels, columns.step)
            .order_by(columns.labels, columns.step)
        )
        found: dict[str, list[Step]] = {}
        for labels, *figures in await self._db.execute(statement):
            found.setdefault(labels, []).append(Step(*figures))
        return found

    async def holes(
        self, parts: Sequence[Part], asked: Asked, *, longer_than: int, is_one_host: bool
    ) -> dict[str, list[tuple[int, int]]]:
        """Return, by labels, the stretches between two rows in which no machine has samples."""
        rows = _rows(parts, asked)
        within: dict[str, Any] = {"partition_by": rows.c.labels, "order_by": rows.c.start}
        # Rows of several machines overlap. That window takes as long as all the rest, hence not for one machine.
        gone = rows.c.end if is_one_host else func.max(rows.c.end).over(**within, rows=(None, 0))
        seen = select(
            rows.c.labels, gone.label("gone"), func.lead(rows.c.start).over(**within).label("back")
        ).subquery()
        statement = (
            select(seen.c.labels, seen.c.gone, seen.c.back)
            .where(seen.c.back - seen.c.gone > longer_than)
            .order_by(seen.c.labels, seen.c.gone)
        )
        found: dict[str, list[tuple[int, int]]] = {}
        for labels, hole_start, hole_end in await self._db.execute(statement):
            found.setdefault(labels, []).append((hole_start, hole_end))
        return found


def _rows(parts: Sequence[Part], asked: Asked) -> Subquery:
    """Return the rows of all parts. All numbers are bound: questions of a kind are one statement, compiled once."""
    rollups, samples = metric_rollups.c, metric_samples.c
    chosen: list[Select[Any]] = []
    for part in parts:
        since, end = literal(part.since, BigInteger), literal(part.until, BigInteger)
        if part.level:
            figures: Sequence[Any] = (rollups["count"], rollups["sum"], rollups["min"], rollups["max"])
            rows = _part(part.ids, asked, rollups.start, part.level, figures)
            rows = rows.join(metric_rollups, rollups.series_id == metric_series.c.id)
            chosen.append(rows.where(rollups.tier == part.level, rollups.start >= since, rollups.start < end))
        else:
            figures = (literal_column("1"), samples.value, samples.value, samples.value)
            rows = _part(part.ids, asked, samples.at, asked.sample_seconds, figures)
            rows = rows.join(metric_samples, samples.series_id == metric_series.c.id)
            chosen.append(rows.where(samples.at >= since, samples.at < end))
    return union_all(*chosen).subquery()


def _part(
    ids: Sequence[int], asked: Asked, begins: ColumnElement[int], span: int, figures: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    named = [figure.label(name) for figure, name in zip(figures, _FIGURES, strict=True)]
    step = (begins - begins % literal(asked.step, BigInteger)).label("step")
    ends = (begins + literal(span, BigInteger)).label("end")
    columns = (metric_series.c.labels, step, begins.label("start"), ends, *named)
    return select(*columns).select_from(metric_series).where(metric_series.c.id.in_(ids))
