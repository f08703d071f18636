"""Percentiles and shares with intervals that hold whatever the distribution is.

The percentile of the values themselves is numpy's ``linear`` one (rank 1 + (n - 1) * share, between two values in
proportion), so that anybody can recompute it from the raw records. Its interval is that of order statistics: the
number of values below the true percentile is binomial, whatever the values are. Ranks between two values are allowed
(Hutson 1999), for whole ranks alone would cover up to 99 % where 95 % is said.

Values of one request depend on each other. The interval then counts as many values as would say as much if they were
independent: from the variance, between clusters, of the share below the percentile (Woodruff 1952; Korn and Graubard
1998), less what the few clusters that have values on the rarer side leave uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, ndtri, stdtrit

from ai_lab.benchmarks.schemas import Estimate

#: Fewer independent requests or blocks than this get no interval at all.
FEWEST_CLUSTERS = 5
_ROUNDING = 1e-12
#: What values of clusters count for at most, each. Held at 1 the estimate, which scatters around 1 where the values
#: are independent, could only widen intervals: they covered up to 98 % instead of 95 %.
_MOST_WORTH = 1.5

Floats = Sequence[float] | NDArray[np.float64]
Labels = Sequence[int] | NDArray[np.int64]


def percentile(values: Floats, share: float) -> float | None:
    """Return the percentile ``share`` (0 to 1) of raw values, infinities among them; None without values.

    A percentile that falls between a finite value and infinity is infinity.
    """
    ranked = np.sort(np.asarray(values, dtype=np.float64))
    return _at(ranked, 1 + (ranked.size - 1) * share) if ranked.size else None


def needed_for_percentile(share: float, confidence: float = 0.95) -> int:
    """Return how many independent values a two-sided interval of the percentile needs: 6 for p50, 72 for p95.

    With fewer, the chance that all are on one side of the percentile is above half of 1 - ``confidence``.
    """
    return max(FEWEST_CLUSTERS, ceil(_needed(share, confidence)))


def percentile_interval(
    values: Floats, share: float, *, clusters: Labels | None = None, confidence: float = 0.95
) -> Estimate:
    """Estimate one percentile; the median is ``share`` 0.5. See ``percentile_intervals``."""
    return percentile_intervals(values, [share], clusters=clusters, confidence=confidence)[0]


def percentile_intervals(
    values: Floats, shares: Sequence[float], *, clusters: Labels | None = None, confidence: float = 0.95
) -> list[Estimate]:
    """Estimate percentiles of raw values, sorting them once.

    Args:
        values: Finite values, shape (n,).
        shares: Each above 0 and below 1.
        clusters: Shape (n,), the request or block that each value is of, where values of one are dependent (the gaps
            of a request). None: every value is independent.
        confidence: Of the intervals.

    Returns:
        An estimate for each share; without an interval where the values are too few, and ``reason`` says how many
        are needed.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        return [Estimate(confidence=confidence, reason="There are no values.") for _ in shares]
    ranked = np.sort(sample)
    groups = None if clusters is None else _Groups.of(sample, ranked, np.asarray(clusters))
    return [_estimate(sample, ranked, groups, share, confidence) for share in shares]


def share_interval(hits: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Estimate the share ``hits / n`` of independent requests with Wilson's interval (Wilson 1927)."""
    if n < FEWEST_CLUSTERS:
        value = hits / n if n else None
        return Estimate(value=value, confidence=confidence, reason=_too_few("a share", FEWEST_CLUSTERS, n))
    z = float(ndtri((1 + confidence) / 2))
    share, weight = hits / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * sqrt(share * (1 - share) / n + weight / (4 * n))
    # At none and at all the limit is 0 and 1 but for rounding.
    low, high = (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)
    return Estimate(value=share, low=low, high=high, confidence=confidence, method="wilson")


@dataclass(frozen=True, slots=True)
class _Groups:
    """Which cluster each value is of."""

    numbers: NDArray[np.int64]  # shape (n,), 0 to count - 1
    sizes: NDArray[np.int64]  # shape (count,)
    #: Values that are worth one independent one, by the ranks of all: steadier than at one percentile, where few
    #: clusters decide. It says whether an interval is given at all.
    redundancy: float

    @classmethod
    def of(cls, sample: NDArray[np.float64], ranked: NDArray[np.float64], clusters: NDArray[np.int64]) -> _Groups:
        numbers = np.unique(clusters, return_inverse=True)[1]
        # Equal values share a rank; else those of one cluster, which lie side by side, would look alike.
        ranks = (np.searchsorted(ranked, sample, "left") + np.searchsorted(ranked, sample, "right")) / 2.0
        ranks -= ranks.mean()
        sizes = np.bincount(numbers)
        alone = float(ranks @ ranks)
        sums = np.bincount(numbers, weights=ranks)
        between = float(sums @ sums) * sizes.size / max(1, sizes.size - 1)
        return cls(numbers, sizes, max(1.0, between / alone) if alone else 1.0)


def _estimate(
    sample: NDArray[np.float64], ranked: NDArray[np.float64], groups: _Groups | None, share: float, confidence: float
) -> Estimate:
    n, name, needed = ranked.size, f"p{share * 100:g}", _needed(share, confidence)
    value = _at(ranked, 1 + (n - 1) * share)
    if groups is None:
        worth, method = float(n), "order statistics"
        enough = n >= needed_for_percentile(share, confidence)
        reason = _too_few(name, needed_for_percentile(share, confidence), n)
    else:
        count = groups.sizes.size
        deciding, worth = _worth(_parts_below(sample, value, share), groups, confidence)
        possible = n / groups.redundancy
        enough = deciding >= FEWEST_CLUSTERS and min(possible, worth) >= needed
        method = "order statistics, clustered"
        lack = max(FEWEST_CLUSTERS / max(deciding, 1.0), needed / min(possible, worth), (count + 1) / count)
        reason = _too_few(name, max(FEWEST_CLUSTERS, ceil(count * lack)), count, about="about ")
    if not enough:
        return Estimate(value=value, confidence=confidence, reason=reason)
    outside = (1 - confidence) / 2
    # The rank at which the binomial distribution is passed with the wanted probability, in parts of all ranks.
    low, high = (
        _at(ranked, (float(bdtrik(chance, worth, share)) + 1) / (worth + 1) * (n + 1))
        for chance in (outside, 1 - outside)
    )
    return Estimate(value=value, low=low, high=high, confidence=confidence, method=method)


def _parts_below(sample: NDArray[np.float64], value: float, share: float) -> NDArray[np.float64]:
    """Return 1 for each value below, 0 above, and for equal ones the part that makes ``share`` of all."""
    below, equal = sample < value, sample == value
    ties = int(equal.sum())
    part = (share * sample.size - int(below.sum())) / ties if ties else 0.0
    parts: NDArray[np.float64] = below + equal * min(max(part, 0.0), 1.0)
    return parts


def _worth(parts_below: NDArray[np.float64], groups: _Groups, confidence: float) -> tuple[float, float]:
    """Return how many clusters decide the percentile (Kish 1965), and how many independent values all are worth."""
    n, count = parts_below.size, groups.sizes.size
    below = np.bincount(groups.numbers, weights=parts_below, minlength=count)
    above = groups.sizes - below
    deciding = min(float(side.sum() ** 2 / (side @ side)) if side.any() else 0.0 for side in (below, above))
    if deciding < FEWEST_CLUSTERS:
        return deciding, float(n)
    share = float(below.sum()) / n
    surplus = below - share * groups.sizes
    variance = count / (count - 1) * float(surplus @ surplus) / n**2
    worth = share * (1 - share) / variance if variance * n > _ROUNDING else float(n)
    chance = (1 + confidence) / 2
    return deciding, min(_MOST_WORTH * n, worth * float(ndtri(chance) / stdtrit(deciding - 1, chance)) ** 2)


def _needed(share: float, confidence: float) -> float:
    return log((1 - confidence) / 2) / log(max(share, 1 - share))


def _at(ranked: NDArray[np.float64], rank: float) -> float:
    """Return the value at a rank from 1, between two values in proportion."""
    rank = min(max(rank, 1.0), float(ranked.size))
    lower = int(rank)
    part = rank - lower
    below, above = float(ranked[lower - 1]), float(ranked[min(lower, ranked.size - 1)])
    # Also where both are infinite.
    return below if part == 0 or below == above else below + part * (above - below)


def _too_few(what: str, needed: int, n: int, *, about: str = "") -> str:
    return f"An interval of {what} needs {about}{needed} independent requests or blocks; there are {n}."
