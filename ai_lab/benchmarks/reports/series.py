"""What charts draw, taken from the raw records in one pass and in bounded room: at most 2,000 points a chart.

Where points are left out, the largest are kept, and how many there were is kept too, so that a chart can say so.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ai_lab.benchmarks.records import Record, Sample, Status
from ai_lab.benchmarks.reports.requests import WHOLE, between_ms

T = TypeVar("T")
MOST_POINTS = 2000
_LARGEST_GAPS = 60
_MOST_BARS = 48
_MOST_TOKENS_OF_BAR = 40


class Reservoir(Generic[T]):
    """An even random part of a series of unknown length, of at most ``most`` items; the same for the same series.

    Random and not every so manieth, which would always meet the same arm or the same place in an answer. Algorithm L
    of K.-H. Li, Reservoir-Sampling Algorithms of Time Complexity O(n(1 + log(N/n))), 1994.
    """

    def __init__(self, most: int) -> None:
        self.items: list[T] = []
        self.seen = 0
        self._most = most
        self._random = random.Random(most)  # noqa: S311 - which points a chart shows is no secret
        self._weight = 1.0
        self._next = most

    def add(self, item: T) -> None:
        """Take the next item, perhaps in the place of an earlier one, or leave it out."""
        self.seen += 1
        if self.seen <= self._most:
            self.items.append(item)
        elif self.seen == self._next:
            self.items[self._random.randrange(self._most)] = item
        if self.seen == self._next:
            self._weight *= math.exp(math.log(1 - self._random.random()) / self._most)
            self._next += int(math.log(1 - self._random.random()) / math.log1p(-self._weight)) + 1


@dataclass(slots=True)
class Latencies:
    """Milliseconds of the requests of one arm at one level; ``requests`` counts all but the cancelled ones."""

    values: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """One request, in milliseconds since it was sent (open loops: intended)."""

    arm: int
    level: int
    index: int
    tokens_ms: list[float]  # moments of chunks: the first, the last, and at most so many between them
    end_ms: float
    status: Status


@dataclass(slots=True)
class Series:
    """Everything the charts of one run are drawn of."""

    latencies: dict[tuple[int, int], Latencies] = field(default_factory=lambda: defaultdict(Latencies))  # arm, level
    gaps: Reservoir[tuple[int, int, float]] = field(default_factory=lambda: Reservoir(MOST_POINTS - _LARGEST_GAPS))
    largest: list[tuple[float, int, int]] = field(default_factory=list)  # a heap of gap ms, end of it, arm
    bars: Reservoir[Bar] = field(default_factory=lambda: Reservoir(_MOST_BARS))
    samples: list[Sample] = field(default_factory=list)
    origin_ns: int = 0

    def seconds(self, at_ns: int) -> float:
        """Return the seconds since the first stamp of the run."""
        return (at_ns - self.origin_ns) / 1e9

    def gap_points(self) -> list[tuple[int, float, float]]:
        """Return arm, seconds and milliseconds of gaps: an even part of all, and the largest."""
        points = {(arm, at_ns, gap) for arm, at_ns, gap in self.gaps.items}
        points |= {(arm, at_ns, gap) for gap, at_ns, arm in self.largest}
        return [(arm, self.seconds(at_ns), gap) for arm, at_ns, gap in sorted(points, key=lambda one: one[1])]


def series_of(records: Iterable[Record], samples: Iterable[Sample], *, is_open: bool) -> Series:
    """Read records and samples once. Open loops count latencies from the intended time."""
    taken = Series(samples=sorted(samples, key=lambda one: one.at_ns))
    starts = [taken.samples[0].at_ns] if taken.samples else []
    for record in records:
        if record.phase != "measured" or record.status == "cancelled":
            continue
        start = record.intended_ns if is_open and record.intended_ns is not None else record.sent_ns
        cell = taken.latencies[record.arm, record.level]
        cell.requests += 1
        if start is None:
            continue
        starts = [min([start, *starts])]
        taken.bars.add(_bar(record, start))
        if record.status in WHOLE:
            _take(cell, "ttft", between_ms(start, record.first_token_ns))
            _take_gaps(taken, record)
        if record.status == "ok":
            _take(cell, "e2e", between_ms(start, record.last_token_ns))
    taken.origin_ns = starts[0] if starts else 0
    return taken


def _bar(record: Record, start_ns: int) -> Bar:
    stamps = record.chunk_ns
    tokens = [(stamps[at] - start_ns) / 1e6 for at in spread(len(stamps), _MOST_TOKENS_OF_BAR)]
    end_ns = record.last_token_ns or record.end_ns or start_ns
    return Bar(record.arm, record.level, record.index, tokens, (end_ns - start_ns) / 1e6, record.status)


def _take(cell: Latencies, name: str, value: float | None) -> None:
    if value is not None:
        cell.values[name].append(value)


def _take_gaps(taken: Series, record: Record) -> None:
    largest, at_largest = -1.0, 0
    for before, after in itertools.pairwise(record.chunk_ns):
        gap = (after - before) / 1e6
        taken.gaps.add((record.arm, after, gap))
        if gap > largest:
            largest, at_largest = gap, after
    if largest >= 0:
        push = heapq.heappush if len(taken.largest) < _LARGEST_GAPS else heapq.heappushpop
        push(taken.largest, (largest, at_largest, record.arm))


def cumulative(values: Sequence[float], requests: int, most: int) -> list[tuple[float, float]]:
    """Return at most ``most`` points (value, share of all requests at or below it) of the distribution.

    Failed requests never finish: with some, the last share is below 1.
    """
    ordered = sorted(values)
    count = len(ordered)
    if count <= most:
        return [(value, (rank + 1) / requests) for rank, value in enumerate(ordered)]
    ranks = sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})
    return [(ordered[rank], (rank + 1) / requests) for rank in ranks]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value with at least ``share`` of the ordered values at or below it."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def highest_of_slices(points: Sequence[tuple[float, float]], most: int) -> tuple[list[tuple[float, float]], int]:
    """Return the highest point of every so many neighbours, and how many neighbours that is (1: all are kept)."""
    size = -(-len(points) // most) if points else 1
    if size == 1:
        return list(points), 1
    slices = [points[start : start + size] for start in range(0, len(points), size)]
    return [max(one, key=lambda point: point[1]) for one in slices], size


def spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` positions of ``count``, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})
