from __future__ import annotations

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ai_lab.benchmarks.analysis.drift import FEWEST_VALUES, _rank_sum_p, measure_drift, warmup_count

CHANCE = np.random.default_rng


def test_a_slope_is_theil_and_sens_in_percent_of_the_median() -> None:
    values = CHANCE(0).lognormal(0, 0.1, 41) + np.linspace(0, 0.3, 41)
    slope = scipy.stats.theilslopes(values, np.arange(41)).slope
    assert measure_drift(values).percent == pytest.approx(slope * 40 / np.median(values) * 100)


def test_the_p_value_of_a_series_with_ties_is_kendalls() -> None:
    values = np.round(np.tile([1.0, 1.4], 40) + CHANCE(5).normal(0, 0.2, 80) + np.linspace(0, 0.15, 80), 1)
    drift = measure_drift(values)
    assert drift.lag1_autocorrelation is not None
    assert drift.lag1_autocorrelation < 0  # else the variance is corrected for it
    expected = scipy.stats.kendalltau(np.arange(80), values, method="asymptotic").pvalue
    assert expected < 0.3
    assert drift.p_value == pytest.approx(expected, rel=0.03)


def test_steady_series_are_called_stable() -> None:
    chance = CHANCE(1)
    unstable = sum(not measure_drift(chance.lognormal(0, 0.2, 50)).is_stable for _ in range(200))
    assert unstable <= 8


def test_a_drift_is_found() -> None:
    chance = CHANCE(2)
    for _ in range(20):
        drift = measure_drift(chance.lognormal(0, 0.02, 60) * np.linspace(1, 1.1, 60))
        assert drift.is_stable is False
        assert drift.percent == pytest.approx(9.5, abs=3)
        assert drift.p_value is not None
        assert drift.p_value < 0.01


def test_ups_and_downs_are_no_drift_and_yet_unstable() -> None:
    chance, drifting, unstable = CHANCE(3), 0, 0
    for _ in range(100):
        noise = chance.normal(0, 0.05, 120)
        for place in range(1, 120):
            noise[place] += 0.7 * noise[place - 1]
        drift = measure_drift(np.exp(noise))
        assert drift.p_value is not None
        drifting += drift.p_value < 0.05
        unstable += not drift.is_stable
    assert drifting <= 16  # a test that takes values as independent says so of about 45
    assert unstable >= 95


def test_long_series_are_thinned_and_say_the_same() -> None:
    values = CHANCE(4).lognormal(0, 0.1, 5000) * np.linspace(1, 1.05, 5000)
    drift = measure_drift(values)
    assert drift.percent == pytest.approx(4.9, abs=1)
    assert drift.is_stable is False


def test_too_few_values_say_nothing() -> None:
    drift = measure_drift([1.0] * (FEWEST_VALUES - 1))
    assert (drift.percent, drift.p_value, drift.lag1_autocorrelation, drift.is_stable) == (None, None, None, None)
    assert measure_drift([2.0] * FEWEST_VALUES).is_stable is True


def test_a_warm_up_is_cut_and_steady_series_are_left_alone() -> None:
    chance = CHANCE(6)
    for _ in range(20):
        warm = chance.lognormal(0, 0.05, 100)
        warm[:10] *= np.linspace(2, 1.2, 10)
        assert 5 <= warmup_count(warm) <= 25
    assert sum(warmup_count(chance.lognormal(0, 0.3, 100)) > 0 for _ in range(200)) <= 12


def test_the_warm_ups_rank_test_is_mann_and_whitneys() -> None:
    chance = CHANCE(7)
    some, others = np.round(chance.lognormal(0.3, 0.3, 5), 1), np.round(chance.lognormal(0, 0.3, 90), 1)
    expected = scipy.stats.mannwhitneyu(some, others, method="asymptotic").pvalue
    assert _rank_sum_p(some, others) == pytest.approx(expected)


@given(arrays.arrays(np.float64, st.integers(0, 80), elements=st.floats(0, 1e6)))
def test_never_more_than_a_quarter_is_cut_and_no_series_breaks_it(values: np.ndarray) -> None:
    count = warmup_count(values)
    assert 0 <= count <= values.size / 4
    assert count % 5 == 0
    drift = measure_drift(values)
    assert drift.p_value is None or 0 <= drift.p_value <= 1
