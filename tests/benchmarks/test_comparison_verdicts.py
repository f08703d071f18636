from __future__ import annotations

from math import log

import numpy as np
import pytest

from ai_lab.benchmarks.analysis.comparison import Question, compare_blocks
from ai_lab.benchmarks.analysis.verdicts import is_slower_than, verdict_of
from ai_lab.benchmarks.schemas import Comparison


def compared(
    change: float, *, noise: float = 0.005, n: int = 12, lower_is_better: bool = True, margin: float = 0.03
) -> Comparison:
    """Compare twelve blocks whose log-ratios have exactly this mean and spread."""
    question = Question(
        "ttft" if lower_is_better else "decode_tps", "", "B", "A", 0, 1, lower_is_better=lower_is_better
    )
    pairs = np.random.default_rng(1).normal(0, 1, n)
    pairs = (pairs - pairs.mean()) / pairs.std(ddof=1) * noise + log(1 + change)
    return compare_blocks([(question, np.exp(pairs), np.ones(n))], margin=margin)[0]


@pytest.mark.parametrize(
    ("low", "high", "p_adjusted", "verdict"),
    [
        (0.01, 0.06, 0.01, "slower"),
        (-0.06, -0.01, 0.01, "faster"),
        (0.01, 0.06, 0.06, "inconclusive"),  # the interval alone does not pay for the other comparisons
        (-0.01, 0.06, 0.01, "inconclusive"),
        (0.005, 0.02, 0.001, "equivalent"),  # certain, and too small to matter
        (-0.02, 0.02, 1.0, "equivalent"),
        (-0.02, 0.031, 1.0, "inconclusive"),
    ],
)
def test_a_verdict_needs_interval_and_p_value(low: float, high: float, p_adjusted: float, verdict: str) -> None:
    assert verdict_of(low, high, p_adjusted, margin=0.03, lower_is_better=True) == verdict
    turned = {"slower": "faster", "faster": "slower"}.get(verdict, verdict)
    assert verdict_of(low, high, p_adjusted, margin=0.03, lower_is_better=False) == turned


def test_sentences_are_for_people() -> None:
    assert compared(0.2).sentence == "B is slower than A by 20 % (ttft)."
    assert compared(-0.2, noise=0.03, lower_is_better=False).sentence == "B is slower than A by 18-22 % (decode_tps)."
    assert compared(0.2, noise=0.03, lower_is_better=False).sentence == "B is faster than A by 18-22 % (decode_tps)."
    assert compared(0.05, noise=0.02).sentence == "B is slower than A by 3.7-6.3 % (ttft)."
    equivalent = compared(0.01, noise=0.01).sentence
    assert equivalent == "B and A are equivalent within 3 % (ttft: between 0.4 % more and 1.6 % more)."
    unsure = compared(0.02, noise=0.05)
    assert unsure.verdict == "inconclusive"
    assert unsure.sentence.startswith("Cannot tell yet B from A (ttft: between 1.2 % less and 5.3 % more): ")
    assert unsure.sentence.endswith(
        f"{unsure.blocks_needed} more blocks would, in a run of {12 + (unsure.blocks_needed or 0)}."
    )


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_slower_by_more_than_a_limit_needs_evidence(lower_is_better: bool) -> None:
    sign = 1 if lower_is_better else -1
    slower = compared(0.1 * sign, lower_is_better=lower_is_better)
    assert slower.verdict == "slower"
    assert is_slower_than(slower, 0.05) is True
    assert is_slower_than(slower, 0.15) is False
    assert is_slower_than(slower, 0.1) is None  # the limit is inside the interval
    assert is_slower_than(compared(-0.1 * sign, lower_is_better=lower_is_better), 0.05) is False
    assert is_slower_than(compared(0.001, lower_is_better=lower_is_better), 0.05) is False


def test_slower_cannot_be_told_without_an_interval_or_with_a_wide_one() -> None:
    assert is_slower_than(compared(0.5, n=3), 0.05) is None
    assert is_slower_than(compared(0.03, noise=0.2), 0.05) is None


def test_a_limit_is_not_exceeded_by_a_comparison_that_chance_explains() -> None:
    sure = compared(0.2)
    assert is_slower_than(sure.model_copy(update={"verdict": "inconclusive"}), 0.05) is None
