from __future__ import annotations

from math import exp, log, log1p, sqrt

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ai_lab.benchmarks.analysis.comparison import Question, compare_blocks, compare_runs
from ai_lab.benchmarks.analysis.permutation import holm, sign_flip_p
from ai_lab.benchmarks.analysis.power import MOST_BLOCKS, blocks_for, fewest_blocks
from ai_lab.benchmarks.schemas import Comparison, Estimate

LATENCY = Question("ttft", "ms", "B", "A", 0, 1, lower_is_better=True)
RATE = Question("decode_tps", "tokens/s", "B", "A", 0, 1, lower_is_better=False)
Floats = np.ndarray


def drifting(chance: np.random.Generator, n: int, change: float, noise: float) -> tuple[Floats, Floats]:
    """Simulate n rounds of two blocks in random order while the machine gets 5 % slower and wanders by as much."""
    walk = np.cumsum(chance.normal(0, 0.05 / sqrt(2 * n), 2 * n)) + np.linspace(0, log(1.05), 2 * n)
    second = chance.integers(0, 2, n)
    arm = np.exp(walk[2 * np.arange(n) + second] + chance.normal(0, noise, n)) * (1 + change)
    return arm, np.exp(walk[2 * np.arange(n) + 1 - second] + chance.normal(0, noise, n))


def compare(question: Question, arm: Floats, baseline: Floats, *, margin: float = 0.03) -> Comparison:
    return compare_blocks([(question, arm, baseline)], margin=margin)[0]


def test_equal_arms_on_a_drifting_machine_are_not_called_faster_or_slower() -> None:
    chance = np.random.default_rng(1)
    for n in (10, 20):
        false = sum(
            compare(LATENCY, *drifting(chance, n, 0, 0.02), margin=0.0001).verdict != "inconclusive" for _ in range(200)
        )
        assert false <= 20, f"{n} blocks"  # of 5 %, the chance of more is below 0.1 %


def test_a_family_of_metrics_gives_no_more_false_alarms_than_one() -> None:
    chance, false = np.random.default_rng(2), 0
    for _ in range(100):
        family = [(LATENCY, *drifting(chance, 12, 0, 0.02)) for _ in range(8)]
        false += any(one.verdict != "inconclusive" for one in compare_blocks(family, margin=0.0001))
    assert false <= 13


def test_a_change_of_three_percent_is_found_in_the_blocks_that_are_asked_for() -> None:
    chance, asked, found = np.random.default_rng(3), 0, 0
    while asked < 60:
        first = compare(LATENCY, *drifting(chance, 10, 0.03, 0.05))
        if first.verdict != "inconclusive":
            continue
        asked += 1
        assert first.blocks_needed is not None
        second = compare(LATENCY, *drifting(chance, 10 + first.blocks_needed, 0.03, 0.05))
        found += second.verdict == "slower"
    assert found >= 50  # 90 % and more are found: scripts/measure_benchmark_statistics.py


@pytest.mark.parametrize("n", [5, 10, 40])
def test_the_interval_of_the_ratio_covers_the_truth(n: int) -> None:
    chance, covered = np.random.default_rng(n), 0
    for _ in range(200):
        one = compare(LATENCY, *drifting(chance, n, 0.1, 0.05))
        assert one.low is not None
        assert one.high is not None
        covered += one.low <= 1.1 <= one.high
    assert 178 <= covered <= 199


def test_few_blocks_have_students_interval() -> None:
    pairs = np.random.default_rng(4).normal(0.1, 0.02, 12)
    one = compare(LATENCY, np.exp(pairs), np.ones(12))
    student = scipy.stats.ttest_1samp(pairs, 0).confidence_interval()
    assert one.ratio == pytest.approx(exp(pairs.mean()))
    assert one.low == pytest.approx(exp(student.low))
    assert one.high == pytest.approx(exp(student.high))
    assert one.change_percent == pytest.approx((exp(pairs.mean()) - 1) * 100)
    assert one.n_blocks == 12
    assert "paired t" in one.method
    many = np.random.default_rng(4).normal(0.1, 0.02, 60)
    assert "bootstrap" in compare(LATENCY, np.exp(many), np.ones(60)).method


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.float64, st.integers(2, 9), elements=st.floats(-1, 1).map(lambda one: round(one, 3))))
def test_the_p_value_of_few_pairs_is_that_of_every_flip_of_signs(pairs: Floats) -> None:
    expected = scipy.stats.permutation_test(
        (pairs, np.zeros(pairs.size)),
        lambda one, other: one.sum() - other.sum(),
        permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue
    assert sign_flip_p(pairs) == pytest.approx(min(expected, 1))


def test_the_p_value_of_many_pairs_is_close_to_the_exact_one_and_never_zero() -> None:
    pairs = np.random.default_rng(5).normal(0.01, 0.02, 40)
    assert sign_flip_p(pairs) == pytest.approx(scipy.stats.ttest_1samp(pairs, 0).pvalue, rel=0.3)
    assert sign_flip_p(pairs, seed=1) == sign_flip_p(pairs, seed=1)
    assert 0 < sign_flip_p(np.full(40, 0.5)) < 1e-4


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_below_five_blocks_there_is_no_interval_and_a_number_of_blocks_that_would_tell(n: int) -> None:
    arm, baseline = drifting(np.random.default_rng(6), 6, 0.2, 0.01)
    one = compare(LATENCY, arm[:n], baseline[:n])
    assert one.verdict == "inconclusive"
    assert (one.low, one.high, one.p_value) == (None, None, None)
    assert (one.ratio is None) == (n == 0)
    assert one.blocks_needed is not None
    assert n + one.blocks_needed >= 6
    assert f"{one.blocks_needed} more blocks would" in one.sentence


def test_five_blocks_alone_cannot_be_significant_and_six_can() -> None:
    sure = np.full(6, 1.5) + np.arange(6) / 1000
    assert compare(LATENCY, sure[:5], np.ones(5)).verdict == "inconclusive"
    assert compare(LATENCY, sure[:5], np.ones(5)).blocks_needed == 1
    assert compare(LATENCY, sure, np.ones(6)).verdict == "slower"
    assert fewest_blocks(1) == 6
    assert fewest_blocks(8) == 9
    for family in (1, 2, 7, 100):
        n = fewest_blocks(family)
        assert 2.0 ** (1 - n) * family < 0.05 <= 2.0 ** (2 - n) * family or n == 5


def test_blocks_without_a_figure_are_left_out_with_their_partner() -> None:
    arm, baseline = np.array([2.0, np.nan, 2.2, 2.1, 0.0, 2.0, 2.1, np.inf, 2.2]), np.ones(9)
    one = compare(LATENCY, arm, baseline)
    assert one.n_blocks == 6
    assert one.ratio == pytest.approx(float(np.exp(np.log([2.0, 2.2, 2.1, 2.0, 2.1, 2.2]).mean())))
    assert compare(LATENCY, np.full(6, np.nan), np.ones(6)).verdict == "inconclusive"


def test_equal_figures_are_equivalent() -> None:
    one = compare(LATENCY, np.full(10, 3.0), np.full(10, 3.0))
    assert (one.verdict, one.low, one.high, one.p_value) == ("equivalent", 1, 1, 1)


@pytest.mark.parametrize(("effect", "spread"), [(0.0, 0.02), (0.05, 0.05), (0.3, 0.2)])
def test_as_many_blocks_are_asked_for_as_the_t_distribution_says(effect: float, spread: float) -> None:
    seen, margin = 8, log1p(0.03)
    largest = spread * sqrt((seen - 1) / scipy.stats.chi2.ppf(0.2, seen - 1))
    smallest = effect - scipy.stats.t.ppf(0.9, seen - 1) * spread / sqrt(seen)

    def is_enough(n: int) -> bool:
        error, t = largest / sqrt(n), scipy.stats.t.ppf(0.975, n - 1)
        return bool(2 * t * error <= margin or (t + scipy.stats.t.ppf(0.9, n - 1)) * error <= smallest)

    expected = next(n for n in range(seen + 1, 10_000) if is_enough(n))
    assert blocks_for(effect, spread, n_seen=seen, margin=margin) == expected


def test_a_hopeless_comparison_asks_for_no_number() -> None:
    assert blocks_for(0.0, 5.0, n_seen=10, margin=0.001) is None
    one = compare(LATENCY, np.exp(np.random.default_rng(7).normal(0, 3, 10)), np.ones(10), margin=0.001)
    assert one.blocks_needed is None
    assert f"{MOST_BLOCKS:,}" in one.sentence


def test_more_noise_and_a_larger_family_need_more_blocks() -> None:
    numbers = [blocks_for(0.02, noise, n_seen=10, margin=0.03) for noise in (0.02, 0.05, 0.1)]
    assert None not in numbers
    assert numbers == sorted(numbers, key=lambda number: number or 0)
    one, many = (blocks_for(0.02, 0.05, n_seen=10, margin=0.03, family=family) for family in (1, 20))
    assert one is not None
    assert many is not None
    assert many > one


def test_stored_runs_are_judged_against_the_noise_between_equal_runs() -> None:
    noise = np.random.default_rng(8).normal(0, 0.05, 12)
    near, far = Estimate(value=104.0), Estimate(value=150.0)
    old = Estimate(value=100.0)
    unsure, sure = (compare_runs([(LATENCY, new, old, noise)], margin=0.03)[0] for new in (near, far))
    assert unsure.verdict == "inconclusive"
    assert sure.verdict == "slower"
    assert unsure.is_historical
    assert unsure.blocks_needed is None
    assert sure.ratio == pytest.approx(1.5)
    assert sure.sentence.startswith("Stored runs:")


def test_stored_runs_without_known_noise_say_why_nothing_can_be_told() -> None:
    for noise in ([], [0.01] * 4):
        one = compare_runs([(LATENCY, Estimate(value=200.0), Estimate(value=100.0), noise)], margin=0.03)[0]
        assert one.verdict == "inconclusive"
        assert (one.ratio, one.change_percent, one.low) == (None, None, None)  # never a bare change
        assert f"{len(noise)} of the 5" in one.sentence
    nothing = compare_runs([(LATENCY, Estimate(), Estimate(value=1.0), [0.01] * 6)], margin=0.03)[0]
    assert nothing.verdict == "inconclusive"
    assert "no figure" in nothing.sentence


def test_small_stored_runs_are_no_surer_than_their_own_intervals() -> None:
    quiet = [0.0001, -0.0001] * 5
    wide = Estimate(value=110.0, low=90.0, high=135.0)
    one = compare_runs([(LATENCY, wide, Estimate(value=100.0), quiet)], margin=0.03)[0]
    assert one.verdict == "inconclusive"
    assert (
        compare_runs([(LATENCY, Estimate(value=110.0), Estimate(value=100.0), quiet)], margin=0.03)[0].verdict
        == "slower"
    )


def test_equal_stored_runs_are_not_called_faster_or_slower() -> None:
    chance, false = np.random.default_rng(9), 0
    for _ in range(300):
        runs = chance.normal(0, 0.03, 10)
        old, new = (Estimate(value=exp(run)) for run in runs[-2:])
        one = compare_runs([(LATENCY, new, old, np.diff(runs[:-1]))], margin=0.0001)[0]
        false += one.verdict != "inconclusive"
    assert false <= 28
