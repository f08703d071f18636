"""Counters, gauges and histograms that keep their text ready, so that a scrape takes a millisecond or two.

Rendering holds Python's lock, and whoever streams tokens waits meanwhile: a general client library, which makes
objects of every value first, takes twenty times as long for the same text.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from threading import RLock
from typing import Generic, TypeVar

from ai_lab.telemetry.prometheus.families import FAMILIES, PREFIX, Family
from ai_lab.telemetry.schemas import encodable

OTHER = "other"
#: A histogram has some twenty lines per label set.
MOST_LABEL_SETS = {"counter": 1000, "gauge": 1000, "histogram": 200}

#: Name of the family, label values in its order, value; None: there is none here now.
Reading = tuple[str, tuple[str, ...], float | None]


class Number:
    """A counter or a gauge."""

    __slots__ = ("_lock", "_name", "_value")

    def __init__(self, family: Family, values: Sequence[str], lock: RLock) -> None:
        self._name = _series(family.name, zip(family.labels, values, strict=True))
        self._value = 0.0
        self._lock = lock

    def inc(self, amount: float = 1) -> None:
        """Add; a counter is only ever given what is not negative."""
        with self._lock:
            self._value += amount

    def text(self, *, openmetrics: bool) -> str:
        """Return the line."""
        return f"{self._name} {_number(self._value)}\n"


class Histogram:
    """How often values fell into each bucket, their sum, and per bucket the last one's trace."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_lock", "_names", "_sum")

    def __init__(self, family: Family, values: Sequence[str], lock: RLock) -> None:
        labels = list(zip(family.labels, values, strict=True))
        self._bounds = family.buckets
        bounds = [*(repr(bound) for bound in family.buckets), "+Inf"]
        self._names = [_series(f"{family.name}_bucket", [*labels, ("le", bound)]) for bound in bounds]
        self._names += [_series(f"{family.name}_{part}", labels) for part in ("count", "sum")]
        self._counts = [0] * len(bounds)
        self._sum = 0.0
        self._exemplars: dict[int, str] = {}
        self._lock = lock

    def observe(self, value: float, trace_id: str | None = None, *, times: int = 1) -> None:
        """Count a value so many times; ``trace_id`` (hexadecimal digits) leads to the log entries about it."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += times
            self._sum += value * times
            if trace_id:
                self._exemplars[place] = f' # {{trace_id="{trace_id}"}} {value!r} {time.time():.3f}'

    def fill(self, at_most: Sequence[int], total: float) -> None:
        """Take over what was counted elsewhere: how many are at most each bound, last how many there are; their sum."""
        with self._lock:
            self._counts = [upper - lower for lower, upper in pairwise((0, *at_most))]
            self._sum = total

    def text(self, *, openmetrics: bool) -> str:
        """Return the lines."""
        with self._lock:
            counts, total = self._counts.copy(), self._sum
            exemplars = self._exemplars.copy() if openmetrics else {}
        lines = []
        so_far = 0
        for place, count in enumerate(counts):
            so_far += count
            lines.append(f"{self._names[place]} {so_far}{exemplars.get(place, '')}\n")
        lines.append(f"{self._names[-2]} {so_far}\n{self._names[-1]} {_number(total)}\n")
        return "".join(lines)


Series = TypeVar("Series", Number, Histogram)


class Bounded(Generic[Series]):
    """The series of one family by label values; what comes after the limit is counted together, as ``other``.

    So sums over the family stay true. Looking up a series that is there costs one dictionary access.
    """

    def __init__(self, family: Family, kind: type[Series], lock: RLock, dropped: Callable[[str], None]) -> None:
        self._family = family
        self._kind: type[Series] = kind
        self._lock = lock
        self._dropped = dropped
        self._series: dict[tuple[str, ...], Series] = {}

    def __call__(self, *values: str) -> Series:
        """Return the series with these label values."""
        return self._series.get(values) or self._added(values)

    def text(self, *, openmetrics: bool) -> str:
        """Return the lines of all series."""
        with self._lock:
            series = list(self._series.values())
        return "".join([one.text(openmetrics=openmetrics) for one in series])

    def _added(self, values: tuple[str, ...]) -> Series:
        with self._lock:
            if len(self._series) >= MOST_LABEL_SETS[self._family.kind] and values not in self._series:
                self._dropped(self._family.name)
                values = (OTHER,) * len(values)
            if values not in self._series:
                self._series[values] = self._kind(self._family, values, self._lock)
            return self._series[values]


class Registry:
    """All that one lab shows; nothing in it is shared with another lab in the same process."""

    def __init__(self) -> None:
        # Reentrant: a monitored generator that is collected as garbage may report while this thread is in here.
        self._lock = RLock()
        self._recorded: dict[str, Bounded[Number] | Bounded[Histogram]] = {}
        self._sources: list[Callable[[], Iterable[Reading]]] = []
        self._dropped = self.number("metrics_series_dropped_total")

    def number(self, name: str) -> Bounded[Number]:
        """Return the counters or gauges of a family, for values that events change."""
        family = FAMILIES[PREFIX + name]
        numbers = Bounded(family, Number, self._lock, self._count_dropped)
        self._recorded[family.name] = numbers
        return numbers

    def histogram(self, name: str) -> Bounded[Histogram]:
        """Return the histograms of a family."""
        family = FAMILIES[PREFIX + name]
        histograms = Bounded(family, Histogram, self._lock, self._count_dropped)
        self._recorded[family.name] = histograms
        return histograms

    def register(self, source: Callable[[], Iterable[Reading]]) -> None:
        """Ask ``source`` for its values at every scrape; it must take no time and never fail."""
        self._sources.append(source)

    def text(self, *, openmetrics: bool) -> Iterator[str]:
        """Yield each family in Prometheus' text format 0.0.4, or in OpenMetrics 1.0 with exemplars."""
        read: dict[str, list[str]] = {}
        for source in self._sources:
            for name, values, value in source():
                if value is not None:
                    labels = zip(FAMILIES[name].labels, values, strict=True)
                    read.setdefault(name, []).append(f"{_series(name, labels)} {_number(value)}\n")
        for name, family in FAMILIES.items():
            lines = "".join(read.get(name, ()))
            if name in self._recorded:
                lines += self._recorded[name].text(openmetrics=openmetrics)
            elif not lines:
                continue
            yield _head(family, openmetrics=openmetrics) + lines
        if openmetrics:
            yield "# EOF\n"

    def _count_dropped(self, family: str) -> None:
        self._dropped(family).inc()


def _head(family: Family, *, openmetrics: bool) -> str:
    name, kind = family.name, family.kind
    if openmetrics:
        name = name.removesuffix("_total" if kind == "counter" else f"_{kind}")
    elif kind == "info":
        kind = "gauge"
    return f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n"


def _series(name: str, labels: Iterable[tuple[str, str]]) -> str:
    shown = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
    return f"{name}{{{shown}}}" if shown else name


def _escaped(value: str) -> str:
    return encodable(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
