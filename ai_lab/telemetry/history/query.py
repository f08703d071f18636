"""Questions to the history: which level answers, in which steps, and where nothing was measured."""

from __future__ import annotations

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ai_lab.clock import as_utc, now
from ai_lab.errors import InvalidRequest, MetricNotFound
from ai_lab.telemetry.history.reading_repository import Asked, HistoryReader, Step
from ai_lab.telemetry.history.repository import HOUR, MINUTE
from ai_lab.telemetry.history.schemas import HistorySeries, KnownMetric, MetricHistory
from ai_lab.telemetry.history.series import UNITS, unit_of

MOST_POINTS = 5000
#: The coarsest level that gives this many points answers, so that a question reads some thousand rows at most.
_ENOUGH_POINTS = 100
_TIERS = (0, MINUTE, HOUR)
_GAP_INTERVALS = 3


async def answer(
    reader: HistoryReader,
    metric: str,
    *,
    start: datetime,
    end: datetime,
    step_seconds: int | None,
    max_points: int,
    labels: Mapping[str, str],
    host: str | None,
    interval_seconds: float,
) -> MetricHistory:
    """Answer ``History.query``.

    Without a step it is chosen for ``max_points``. A given one is rounded up to what the level has: the interval of
    the samples, minutes or hours. A level that was purged for a part of the range gives way to the next one. Steps
    start at whole multiples of their length, so that the first may begin a little before ``start``.
    """
    first, last = _checked(start, end)
    if step_seconds is not None and step_seconds < 1:
        raise InvalidRequest("A step is at least one second.", param="step")
    max_points = max(1, min(max_points, MOST_POINTS))
    chosen = await _chosen_series(reader, metric, labels, host)
    ids = [row["id"] for row in chosen]
    sample_seconds = max(1, math.ceil(interval_seconds))
    tier = _wanted_tier(last - first, step_seconds, max_points)
    while tier < HOUR and await reader.reaches_further_back(ids, tier, first - first % max(tier, 1), last):
        tier = _TIERS[_TIERS.index(tier) + 1]
    step = _step(last - first, step_seconds, max_points, tier or sample_seconds)
    asked = Asked(first - first % step, last, tier, step, sample_seconds)
    return MetricHistory(
        metric=metric,
        unit=unit_of(metric),
        from_=datetime.fromtimestamp(asked.start, UTC),
        to=datetime.fromtimestamp(last, UTC),
        step_seconds=step,
        tier_seconds=tier or sample_seconds,
        series=await _series(reader, chosen, asked),
    )


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
            hosts=sorted({row["host"] for row in rows}),
        )
        for name, rows in by_name.items()
    ]


def _checked(start: datetime, end: datetime) -> tuple[int, int]:
    """Return the range in Unix seconds, cut off at this moment and before 1970."""
    present = int(now().timestamp())
    first, last = (max(0, int(as_utc(moment).timestamp())) for moment in (start, end))
    if first >= last:
        raise InvalidRequest("The range is empty: `from` must be at least a second before `to`.", param="from")
    if first > present:
        raise InvalidRequest("The range lies in the future. Ask for a `from` before now.", param="from")
    return first, min(last, present + 1)


async def _chosen_series(
    reader: HistoryReader, metric: str, labels: Mapping[str, str], host: str | None
) -> list[dict[str, Any]]:
    rows = await reader.metrics()
    of_metric = [row for row in rows if row["name"] == metric]
    if not of_metric and metric in UNITS and not labels and host is None:
        return []  # not measured yet, or not on this machine: an empty history, but no wrong name
    if not of_metric:
        near = difflib.get_close_matches(metric, {row["name"] for row in rows} | set(UNITS), n=3)
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


def _step(seconds: int, step_seconds: int | None, max_points: int, resolution: int) -> int:
    """Return the length of a step: a multiple of ``resolution``."""
    if step_seconds is None:
        # One step less, because the first one may begin before the range.
        return _up(math.ceil(seconds / max(1, max_points - 1)), resolution)
    step = _up(step_seconds, resolution)
    if seconds > step * MOST_POINTS:
        least = _up(math.ceil(seconds / MOST_POINTS), resolution)
        raise InvalidRequest(
            f"Steps of {step} s would make {math.ceil(seconds / step)} points of this range, and {MOST_POINTS} is the "
            f"most. The smallest step possible for it is {least} s.",
            param="step",
        )
    return step


def _up(seconds: int, resolution: int) -> int:
    return max(1, math.ceil(seconds / resolution)) * resolution


async def _series(reader: HistoryReader, chosen: list[dict[str, Any]], asked: Asked) -> list[HistorySeries]:
    ids = [row["id"] for row in chosen]
    hosts: dict[str, list[str]] = defaultdict(list)
    for row in chosen:
        hosts[row["labels"]].append(row["host"])
    parts = await reader.parts(ids, asked)
    steps = await reader.points(parts, asked)
    shortest = (_GAP_INTERVALS - 1) * asked.sample_seconds  # a row covers an interval itself
    holes = await reader.holes(parts, asked, longer_than=shortest, is_one_host=len(ids) == len(hosts))
    until = min(asked.end, int(now().timestamp()))
    return [
        HistorySeries(
            labels=json.loads(labels),
            hosts=names,
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
