"""Questions to the history: which level answers, in which steps, and where nothing was measured."""

from __future__ import annotations

import asyncio
import difflib
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ai_lab.clock import as_utc, now
from ai_lab.errors import EmptyRange, InvalidRequest, MetricNotFound
from ai_lab.telemetry.history.reading_repository import Asked, Figures, HistoryReader, Step
from ai_lab.telemetry.history.repository import HOUR, MINUTE
from ai_lab.telemetry.history.schemas import HistorySeries, KnownMetric, MetricHistory
from ai_lab.telemetry.history.series import UNITS, unit_of

MOST_POINTS = 5000
#: Of all series of an answer together: a megabyte of JSON.
_MOST_POINTS_IN_ALL = 20_000
_DEFAULT_SECONDS = HOUR
#: The coarsest level that gives this many points answers, so that a question reads some thousand rows at most.
_ENOUGH_POINTS = 100
_TIERS = (0, MINUTE, HOUR)
_GAP_INTERVALS = 3


async def answer(
    reader: HistoryReader,
    metric: str,
    *,
    start: datetime | None,
    end: datetime,
    step_seconds: int | None,
    max_points: int,
    labels: Mapping[str, str],
    host: str | None,
    interval_seconds: float,
) -> MetricHistory:
    """Answer ``History.query``.

    Without a start it is an hour. Without a step it is chosen for ``max_points``, fewer where there are many series. A
    given one is rounded up to what the level has: the interval of the samples, minutes or hours. A level that was
    purged for a part of the range gives way to the next one. Steps start at whole multiples of their length, so that
    the first may begin up to one step before ``start``.
    """
    chosen = await _chosen_series(reader, metric, labels, host)
    first, last = _checked(start, end)
    if step_seconds is not None and step_seconds < 1:
        raise InvalidRequest("A step is at least one second.", param="step")
    most_points = max(1, min(MOST_POINTS, _MOST_POINTS_IN_ALL // max(1, len({row["labels"] for row in chosen}))))
    max_points = max(1, min(max_points, most_points))
    ids = [row["id"] for row in chosen]
    sample_seconds = max(1, math.ceil(interval_seconds))
    tier = _wanted_tier(last - first, step_seconds, max_points)
    tier = await _kept_tier(reader, ids, tier, first, last)
    resolution = tier or sample_seconds
    if step_seconds is None:
        # One step less, because the first one may begin before the range.
        step = _up(math.ceil((last - first) / max(1, max_points - 1)), resolution)
    else:
        step = _up(step_seconds, resolution)
        _check_step(step, last - first, most_points, resolution)
    asked = Asked(first - first % step, last, tier, step, sample_seconds)
    return MetricHistory(
        metric=metric,
        unit=unit_of(metric),
        from_=datetime.fromtimestamp(asked.start, UTC),
        to=datetime.fromtimestamp(last, UTC),
        step_seconds=step,
        tier_seconds=resolution,
        series=await _series(reader, chosen, asked),
    )


async def spread(reader: HistoryReader, metric: str, *, start: datetime, end: datetime, host: str) -> Figures | None:
    """Answer ``History.spread``."""
    ids = [row["id"] for row in await reader.metrics(metric) if row["host"] == host]
    # A sample carries the second that it was taken in.
    first, last = math.floor(as_utc(start).timestamp()), math.ceil(as_utc(end).timestamp())
    if not ids or first >= last:
        return None
    tier = await _kept_tier(reader, ids, _wanted_tier(last - first, None, _ENOUGH_POINTS), first, last)
    parts = await reader.parts_within(ids, tier, first, last)
    return await reader.figures(parts, Asked(first, last, tier, 1, 1))


async def known_metrics(reader: HistoryReader) -> list[KnownMetric]:
    """Return every metric by name, with its series and machines."""
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await reader.metrics():
        by_name[row["name"]].append(row)
    return [
        KnownMetric(
            metric=name,
            unit=rows[0]["unit"],
            labels=[json.loads(text) for text in dict.fromkeys(row["labels"] for row in rows)],
            hosts=sorted({row["host"] for row in rows} - {""}),
        )
        for name, rows in by_name.items()
    ]


def _checked(start: datetime | None, end: datetime) -> tuple[int, int]:
    """Return the range in Unix seconds, cut off at this moment and before 1970."""
    present = int(now().timestamp())
    last = max(0, int(as_utc(end).timestamp()))
    first = max(0, last - _DEFAULT_SECONDS if start is None else int(as_utc(start).timestamp()))
    if first >= last:
        raise EmptyRange
    if first > present:
        raise InvalidRequest("The range lies in the future. Ask for a `from` before now.", param="from")
    return first, min(last, present + 1)


async def _chosen_series(
    reader: HistoryReader, metric: str, labels: Mapping[str, str], host: str | None
) -> list[dict[str, Any]]:
    of_metric = await reader.metrics(metric)
    if not of_metric and metric in UNITS and not labels and host is None:
        return []  # not measured yet, or not on this machine: an empty history, but no wrong name
    if not of_metric:
        near = difflib.get_close_matches(metric, await reader.names() | set(UNITS), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise MetricNotFound(f"Nothing of the name {metric!r} was measured here.{hint}", near)
    hosts = sorted({row["host"] for row in of_metric})
    if host is not None and host not in hosts:
        raise MetricNotFound(f"{metric} was not measured on {host!r}, but on {_some(hosts)}.")
    chosen = [
        row
        for row in of_metric
        if (host is None or row["host"] == host) and labels.items() <= json.loads(row["labels"]).items()
    ]
    if not chosen:
        raise MetricNotFound(
            f"{metric} has no series with these labels. It has {_some(sorted({row['labels'] for row in of_metric}))}."
        )
    return chosen


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")  # noqa: PLR2004 - as above


def _wanted_tier(seconds: int, step_seconds: int | None, max_points: int) -> int:
    if step_seconds is not None:
        return max(tier for tier in _TIERS if tier <= step_seconds)
    enough = min(_ENOUGH_POINTS, max_points)
    return next(tier for tier in reversed(_TIERS) if tier == 0 or seconds // tier >= enough)


async def _kept_tier(reader: HistoryReader, ids: list[int], tier: int, first: int, last: int) -> int:
    """Return the first level from ``tier`` on that was not purged for a part of the range."""
    while tier < HOUR and await reader.reaches_further_back(ids, tier, first - first % max(tier, 1), last):
        tier = _TIERS[_TIERS.index(tier) + 1]
    return tier


def _check_step(step: int, seconds: int, most_points: int, resolution: int) -> None:
    if seconds > step * most_points:
        least = _up(math.ceil(seconds / most_points), resolution)
        raise InvalidRequest(
            f"Steps of {step} s would make {math.ceil(seconds / step)} points of this range, and {most_points} is the "
            f"most for each of its series. The smallest step possible for it is {least} s.",
            param="step",
        )


def _up(seconds: int, resolution: int) -> int:
    return max(1, math.ceil(seconds / resolution)) * resolution


async def _series(reader: HistoryReader, chosen: list[dict[str, Any]], asked: Asked) -> list[HistorySeries]:
    ids = [row["id"] for row in chosen]
    hosts: dict[str, list[str]] = defaultdict(list)
    for row in chosen:
        hosts[row["labels"]].append(row["host"])
    parts = await reader.parts(ids, asked.tier, asked.start, asked.end)
    steps = await reader.points(parts, asked)
    shortest = (_GAP_INTERVALS - 1) * asked.sample_seconds  # a row covers an interval itself
    holes = await reader.holes(parts, asked, longer_than=shortest, is_one_host=len(ids) == len(hosts))
    # Thousands of points would hold up everybody else.
    return await asyncio.to_thread(_lines, hosts, steps, holes, asked, shortest)


def _lines(
    hosts: Mapping[str, list[str]],
    steps: Mapping[str, list[Step]],
    holes: Mapping[str, list[tuple[int, int]]],
    asked: Asked,
    shortest: int,
) -> list[HistorySeries]:
    until = min(asked.end, int(now().timestamp()))
    return [
        HistorySeries(
            labels=json.loads(labels),
            hosts=[name for name in names if name],
            points=[_point(step) for step in steps.get(labels, [])],
            gaps=[
                (gone, back)
                for gone, back in _stretches(steps.get(labels, []), holes.get(labels, []), asked.start, until)
                if back - gone > shortest
            ],
        )
        for labels, names in hosts.items()
    ]


def _point(step: Step) -> tuple[int, float, float, float]:
    # The mean of rounded numbers may lie a last digit outside of them.
    return step.start, min(max(step.mean, step.min), step.max), step.min, step.max


def _stretches(steps: list[Step], holes: list[tuple[int, int]], start: int, until: int) -> list[tuple[int, int]]:
    """Return where no samples are: before the first row, between rows, after the last."""
    if not steps:
        return [(start, until)]
    return [(start, steps[0].first), *holes, (steps[-1].last, until)]
