from __future__ import annotations

from math import exp

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ai_lab.benchmarks.analysis.bootstrap import mean_interval, ratio_interval
from ai_lab.benchmarks.analysis.intervals import (
    needed_for_percentile,
    percentile,
    percentile_interval,
    percentile_intervals,
    share_interval,
)
from ai_lab.benchmarks.schemas import Estimate

#: Of 200 simulated runs so few intervals may miss the truth by chance: 95 % of a coverage of 93-97 %, and some more.
FEWEST_COVERED, MOST_COVERED = 0.89, 0.995
LATENCIES = arrays.arrays(np.float64, st.integers(6, 60), elements=st.floats(0.01, 1e6))


def covers(estimate: Estimate, true: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= true <= estimate.high


@given(LATENCIES, st.floats(0, 1))
def test_a_percentile_is_numpys_linear_one(values: np.ndarray, share: float) -> None:
    assert percentile(values, share) == pytest.approx(float(np.quantile(values, share)))


def test_a_percentile_of_failures_counted_as_infinity_is_finite_or_infinite_and_never_nan() -> None:
    endless = float("inf")
    assert percentile([1.0, 2.0, 3.0, endless], 0.5) == 2.5
    assert percentile([1.0, 2.0, 3.0, endless], 0.9) == endless
    assert percentile([1.0, endless, endless], 0.9) == endless
    assert percentile([], 0.5) is None


@pytest.mark.parametrize(("share", "needed"), [(0.5, 6), (0.1, 36), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_a_percentile_with_too_few_values_has_no_interval_and_says_how_many_are_needed(
    share: float, needed: int
) -> None:
    values = np.random.default_rng(0).lognormal(0, 0.3, needed)
    assert needed_for_percentile(share) == needed
    enough, too_few = percentile_interval(values, share), percentile_interval(values[1:], share)
    assert enough.low is not None
    assert enough.reason is None
    assert too_few.value is not None
    assert too_few.low is None
    assert too_few.high is None
    assert f"needs {needed} " in (too_few.reason or "")
    assert f"there are {needed - 1}" in (too_few.reason or "")


@given(LATENCIES, st.floats(0.4, 0.6))
def test_the_interval_of_a_percentile_holds_its_value_and_lies_within_that_of_whole_ranks(
    values: np.ndarray, share: float
) -> None:
    ours = percentile_interval(values, share)
    if ours.low is None or ours.high is None or ours.value is None:
        return
    assert ours.low <= ours.value <= ours.high
    whole = scipy.stats.quantile_test(values, p=share).confidence_interval(0.95)
    assert not ours.low < whole.low
    assert not ours.high > whole.high


@pytest.mark.parametrize(("share", "n"), [(0.5, 6), (0.5, 30), (0.9, 50), (0.95, 100)])
def test_percentile_intervals_cover_the_truth(share: float, n: int) -> None:
    chance = np.random.default_rng(n)
    true = exp(0.5 * float(scipy.stats.norm.ppf(share)))
    covered = np.mean([covers(percentile_interval(chance.lognormal(0, 0.5, n), share), true) for _ in range(1000)])
    assert 0.925 <= covered <= 0.985


def test_gaps_of_one_request_do_not_count_as_independent() -> None:
    chance, true, n = np.random.default_rng(1), 1.0, 20
    requests = np.repeat(np.arange(n), 64)
    clustered, naive = [], []
    for _ in range(300):
        gaps = np.exp(chance.normal(0, 0.2, n)[requests] + chance.normal(0, 0.4, requests.size))
        clustered.append(covers(percentile_interval(gaps, 0.5, clusters=requests), true))
        naive.append(covers(percentile_interval(gaps, 0.5), true))
    assert 0.91 <= np.mean(clustered) <= 0.99
    assert np.mean(naive) < 0.7


def test_few_requests_have_no_interval_of_a_percentile_that_few_of_them_decide() -> None:
    chance = np.random.default_rng(2)
    requests = np.repeat(np.arange(10), 64)
    unlike = np.exp(chance.normal(0, 0.5, 10)[requests] + chance.normal(0, 0.05, requests.size))
    estimate = percentile_interval(unlike, 0.95, clusters=requests)
    assert estimate.low is None
    assert "needs about" in (estimate.reason or "")
    assert "there are 10" in (estimate.reason or "")


def test_percentiles_of_equal_values_are_that_value() -> None:
    requests = np.repeat(np.arange(10), 50)
    for estimate in percentile_intervals([3.0] * 500, [0.5, 0.9], clusters=requests):
        assert (estimate.low, estimate.value, estimate.high) == (3, 3, 3)


@given(
    arrays.arrays(np.float64, 60, elements=st.sampled_from([0.0, 1.0, 2.0, 5.0])),
    arrays.arrays(np.int64, 60, elements=st.integers(0, 12)),
    st.floats(0.01, 0.99),
)
def test_clustered_percentiles_of_any_ticks_and_clusters_are_in_order(
    values: np.ndarray, clusters: np.ndarray, share: float
) -> None:
    estimate = percentile_interval(values, share, clusters=clusters)
    assert (estimate.low is None) == (estimate.reason is not None)
    if estimate.low is not None and estimate.high is not None and estimate.value is not None:
        assert estimate.low <= estimate.value <= estimate.high


@given(st.integers(5, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_wilsons(counted: tuple[int, int]) -> None:
    hits, n = counted
    ours, theirs = share_interval(hits, n), scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert ours.value == hits / n
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)


@pytest.mark.parametrize(("n", "sigma"), [(5, 0.3), (10, 0.6), (100, 0.6)])
def test_intervals_of_the_mean_cover_the_truth(n: int, sigma: float) -> None:
    chance, true = np.random.default_rng(n), exp(sigma**2 / 2)
    covered = np.mean([covers(mean_interval(chance.lognormal(0, sigma, n), seed=seed), true) for seed in range(200)])
    assert FEWEST_COVERED <= covered <= MOST_COVERED


def test_the_mean_of_gaps_is_resampled_by_request() -> None:
    chance, n = np.random.default_rng(3), 20
    requests = np.repeat(np.arange(n), 30)
    clustered, naive = [], []
    for seed in range(200):
        gaps = np.exp(chance.normal(0, 0.2, n)[requests] + chance.normal(0, 0.2, requests.size))
        clustered.append(covers(mean_interval(gaps, clusters=requests, seed=seed), exp(0.04)))
        if seed < 40:
            naive.append(covers(mean_interval(gaps, seed=seed), exp(0.04)))
    assert FEWEST_COVERED <= np.mean(clustered) <= MOST_COVERED
    assert np.mean(naive) < 0.7


def test_a_ratio_of_sums_weighs_requests_by_their_size_and_covers_the_truth() -> None:
    chance = np.random.default_rng(4)
    assert ratio_interval([10.0, 1000.0], [1.0, 10.0]).value == pytest.approx(1010 / 11)
    covered = []
    for seed in range(200):
        tokens = chance.integers(32, 97, 15).astype(np.float64)
        seconds = tokens * 0.02 * chance.lognormal(0, 0.2, 15)
        covered.append(covers(ratio_interval(tokens, seconds, seed=seed), 50 / exp(0.02)))
    assert FEWEST_COVERED <= np.mean(covered) <= MOST_COVERED


@settings(deadline=None, max_examples=30)
@given(arrays.arrays(np.float64, st.integers(5, 40), elements=st.floats(0.01, 1e6)), st.floats(1e-3, 1e3))
def test_the_interval_of_a_mean_holds_it_and_follows_the_unit(values: np.ndarray, unit: float) -> None:
    one, other = mean_interval(values, seed=7), mean_interval(values * unit, seed=7)
    assert one.value == pytest.approx(float(values.mean()))
    if one.low is None or one.high is None or one.value is None:
        assert one.reason
        return
    assert one.low <= one.value * (1 + 1e-9)
    assert one.value <= one.high * (1 + 1e-9)
    assert other.low == pytest.approx(one.low * unit, rel=1e-6)
    assert other.high == pytest.approx(one.high * unit, rel=1e-6)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(5).lognormal(0, 0.3, 30)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_a_mean_below_zero_has_an_interval_too() -> None:
    values = np.random.default_rng(6).normal(-0.1, 1, 40)
    estimate = mean_interval(values)
    student = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert estimate.low == pytest.approx(student.low, abs=0.1)
    assert estimate.high == pytest.approx(student.high, abs=0.1)


@pytest.mark.parametrize(
    ("values", "says"), [([], "no values"), ([1.0, 2.0, 3.0, 4.0], "needs 5"), ([1.0, 1.0, 1.0, 1.0, 50.0], "outweigh")]
)
def test_a_mean_that_cannot_have_an_interval_says_why(values: list[float], says: str) -> None:
    estimate = mean_interval(values)
    assert estimate.value == (np.mean(values) if values else None)
    assert estimate.low is None
    assert says in (estimate.reason or "")


def test_nothing_to_divide_by_is_said() -> None:
    assert "divide" in (ratio_interval([1.0] * 5, [0.0] * 5).reason or "")
    constant = ratio_interval([0.0] * 5, [2.0] * 5)
    assert (constant.low, constant.value, constant.high) == (0, 0, 0)
