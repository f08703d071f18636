"""Whether values changed while they were taken, and how many at the beginning were still warming up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ai_lab.benchmarks.analysis.intervals import Floats

#: Fewer values than this say nothing of drift.
FEWEST_VALUES = 10
#: A drift is unstable when it is certain (p below 1 %) and at least this large; so is an autocorrelation. One of 0.3
#: makes an interval that takes values as independent a quarter too narrow.
LARGEST_DRIFT_PERCENT = 2.0
LARGEST_AUTOCORRELATION = 0.3
SIGNIFICANT_P = 0.01
_MOST_POINTS = 1000  # of more values medians of neighbours are looked at: pairs of all would be too many
_BATCH = 5
_FEWEST_FOR_WARMUP = 20


@dataclass(frozen=True, slots=True)
class Drift:
    """What a series in order of time did. None: too few values to say."""

    percent: float | None  # change from the first to the last value by Theil-Sen's slope, of the median
    p_value: float | None  # Mann-Kendall, two-sided, with ties and autocorrelation allowed for
    lag1_autocorrelation: float | None  # of what remains without the slope
    is_stable: bool | None


def measure_drift(values: Floats) -> Drift:
    """Look for drift in values in order of time.

    The slope is the median of the slopes of all pairs (Theil 1950; Sen 1968). Its p-value is that of Mann and Kendall;
    the variance is that of a first-order autoregressive series where neighbours are alike (Yue and Wang 2004), for
    slow ups and downs are no drift. They show in the autocorrelation, which makes a series unstable by itself.

    Args:
        values: Finite, shape (n,).

    Returns:
        All None below ten values.
    """
    series = np.asarray(values, dtype=np.float64)
    n = series.size
    if n < FEWEST_VALUES:
        return Drift(None, None, None, None)
    points = _thinned(series)
    slope, score = _slope_and_score(points)
    percent = _percent(slope * (points.size - 1), float(np.median(series)))
    places = np.linspace(0, points.size - 1, n)
    whole = _lag1(series - slope * places)
    near = whole if points.size == n else _lag1(points - slope * np.arange(points.size))
    p_value = _p_value(points, score, near)
    is_alike = whole > LARGEST_AUTOCORRELATION and float(ndtr(-whole * sqrt(n))) < SIGNIFICANT_P
    return Drift(percent, p_value, whole, not (is_alike or is_drift(percent, p_value)))


def is_drift(percent: float | None, p_value: float | None) -> bool:
    """Return whether a change is large enough to matter and too certain to be chance; None of either is no drift."""
    if percent is None or p_value is None:
        return False
    return p_value < SIGNIFICANT_P and abs(percent) >= LARGEST_DRIFT_PERCENT


def warmup_count(values: Floats) -> int:
    """Return how many of the first values to leave out as warm-up: at most a quarter, mostly none.

    The place is MSER-5's (White 1997): means of five, cut where the standard error of the rest is smallest. It counts
    only where the first five values are larger or smaller than what is left by ranks (Mann-Whitney, p below 1 %), for
    MSER alone also cuts series that are steady.

    Args:
        values: Finite, in order of time, shape (n,). Below 20 nothing is left out.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.size < _FEWEST_FOR_WARMUP:
        return 0
    batches = series[: series.size // _BATCH * _BATCH].reshape(-1, _BATCH).mean(axis=1)
    # Sums from the end give the variance of each rest at once; centred, so that they do not cancel.
    batches = batches - batches.mean()
    rest = np.arange(batches.size, 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    errors = (squares - sums**2 / rest) / rest**2
    count = int(np.argmin(errors[: series.size // 4 // _BATCH + 1])) * _BATCH
    return count if count and _rank_sum_p(series[:_BATCH], series[count:]) < SIGNIFICANT_P else 0


def _thinned(series: NDArray[np.float64]) -> NDArray[np.float64]:
    if series.size <= _MOST_POINTS:
        return series
    return np.array([np.median(part) for part in np.array_split(series, _MOST_POINTS)])


def _slope_and_score(points: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median slope per point and how many more pairs rise than fall."""
    first, second = np.triu_indices(points.size, 1)
    rises = points[second] - points[first]
    return float(np.median(rises / (second - first))), float(np.sign(rises).sum())


def _p_value(points: NDArray[np.float64], score: float, lag1: float) -> float:
    n = points.size
    variance = (n * (n - 1) * (2 * n + 5) - _of_ties(points, lambda t: t * (t - 1) * (2 * t + 5))) / 18
    # The estimate of few values is too small by (1 + 4 lag1) / n (Kendall 1954).
    alike = min(max(0.0, (n * lag1 + 1) / (n - 4)), 0.95)
    variance *= (1 + alike) / (1 - alike)
    return _two_sided((abs(score) - 1) / sqrt(variance)) if variance > 0 else 1.0


def _rank_sum_p(some: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the two-sided p-value that two samples are alike (Mann-Whitney, with ties)."""
    both = np.sort(np.concatenate([some, others]))
    n = both.size
    ranks = (np.searchsorted(both, some, "left") + np.searchsorted(both, some, "right") + 1) / 2
    surplus = float(ranks.sum()) - some.size * (n + 1) / 2
    variance = some.size * others.size / 12 * (n + 1 - _of_ties(both, lambda t: t**3 - t) / (n * (n - 1)))
    return _two_sided((abs(surplus) - 0.5) / sqrt(variance)) if variance > 0 else 1.0


def _lag1(series: NDArray[np.float64]) -> float:
    centred = series - series.mean()
    whole = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / whole if whole > 0 else 0.0


def _percent(change: float, median: float) -> float:
    return change / abs(median) * 100 if median else 0.0


def _two_sided(z: float) -> float:
    return min(1.0, 2 * float(ndtr(-max(z, 0.0))))


def _of_ties(values: NDArray[np.float64], of_each: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    return float(of_each(np.unique(values, return_counts=True)[1].astype(np.float64)).sum())
