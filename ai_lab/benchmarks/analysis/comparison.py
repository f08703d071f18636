"""Compare arms from interleaved blocks, and a stored run with another against the lab's own noise.

Arms of one run took turns, so that what drifts slowly touches both alike. Of each pair of blocks the logarithm of the
ratio counts. Its mean has a Student-t interval below 30 pairs and a paired bootstrap interval (studentised) from there
on: at 5 to 20 pairs both cover 94-96 % of simulated runs but t is narrower and keeps 96 % where one block in ten is
disturbed (the bootstrap 86-92 %); from 30 pairs on the bootstrap copes better with one-sided disturbances. The p-value
is of flipping the signs of pairs, which is exact when nothing differs, and is adjusted over all comparisons (Holm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ai_lab.benchmarks.analysis.bootstrap import bootstrap_limits
from ai_lab.benchmarks.analysis.intervals import FEWEST_CLUSTERS, Floats
from ai_lab.benchmarks.analysis.permutation import holm, sign_flip_p
from ai_lab.benchmarks.analysis.power import blocks_for, fewest_blocks
from ai_lab.benchmarks.analysis.verdicts import sentence_of, verdict_of
from ai_lab.benchmarks.schemas import Comparison, Estimate

_FEWEST_FOR_BOOTSTRAP = 30


@dataclass(frozen=True, slots=True)
class Question:
    """One metric of one arm against the baseline at one level. A run asks many, judged together (Holm)."""

    metric: str
    unit: str
    arm: str
    baseline: str
    level_index: int
    level: float
    lower_is_better: bool  # latencies: True; rates: False


def compare_blocks(
    questions: Sequence[tuple[Question, Floats, Floats]], *, margin: float, confidence: float = 0.95, seed: int = 0
) -> list[Comparison]:
    """Compare arms that took turns.

    ``blocks_needed`` counts on a new run of that many more blocks: going on with a run until it says what one hopes
    for would raise false alarms.

    Args:
        questions: Each with the figure of every block (its median, say) of the arm and of the baseline, shape
            (n_blocks,) each; block i of both ran side by side. Pairs of which one is NaN, infinite or not above zero
            are left out.
        margin: Differences wholly within this share count as none (0.03).
        confidence: Of the intervals; verdicts hold p-values against 1 - confidence.
        seed: Of the bootstrap and the permutations.

    Returns:
        One comparison for each question, in their order; inconclusive without an interval below five pairs.
    """
    ratios = [_log_ratios(arm, baseline) for _, arm, baseline in questions]
    p_values = [sign_flip_p(pairs, seed=seed) if pairs.size >= FEWEST_CLUSTERS else None for pairs in ratios]
    adjusted = holm(p_values)
    family = max(1, len(questions))
    compared = []
    for (question, _, _), pairs, p_value, p_adjusted in zip(questions, ratios, p_values, adjusted, strict=True):
        comparison = _started(question, margin, confidence, p_value, p_adjusted)
        comparison.n_blocks = pairs.size
        if pairs.size:
            _set_ratio(comparison, float(pairs.mean()))
        if p_adjusted is not None:
            low, high, comparison.method = _limits(pairs, confidence, seed)
            _judge(comparison, low, high, p_adjusted)
        if comparison.verdict == "inconclusive":
            comparison.blocks_needed = _blocks_needed(pairs, log1p(margin), family, confidence)
        comparison.sentence = sentence_of(comparison)
        compared.append(comparison)
    return compared


def compare_runs(
    questions: Sequence[tuple[Question, Estimate, Estimate, Floats]], *, margin: float, confidence: float = 0.95
) -> list[Comparison]:
    """Compare figures of stored runs with those of earlier ones, which no interleaving protects from drift.

    The interval is a prediction interval: of the log-ratio that two runs of the same arm would show, by the root mean
    square of the earlier log-ratios. Neighbours share a run, and it covers 95 % of simulated runs nevertheless. It is
    no narrower than the intervals of both figures together.

    Args:
        questions: Each with the figure of the new run (arm), of the earlier one (baseline), and the log-ratios of the
            same figure between consecutive earlier runs of the same arm: what changes when nothing changed.
        margin: As in ``compare_blocks``.
        confidence: As in ``compare_blocks``.

    Returns:
        One comparison for each question, marked historical; inconclusive with fewer than five earlier log-ratios.
    """
    known = [_against_noise(arm, baseline, noise, confidence) for _, arm, baseline, noise in questions]
    adjusted = holm([p_value for _, _, p_value, _ in known])
    compared = []
    for (question, _, _, noise), (mean, half, p_value, reason), p_adjusted in zip(
        questions, known, adjusted, strict=True
    ):
        comparison = _started(question, margin, confidence, p_value, p_adjusted)
        comparison.is_historical = True
        if half is None or p_adjusted is None or mean is None:
            comparison.sentence = f"Stored runs: cannot tell {question.arm} from {question.baseline}: {reason}"
        else:
            _set_ratio(comparison, mean)
            comparison.method = f"t prediction from {len(noise)} changes between equal runs"
            _judge(comparison, mean - half, mean + half, p_adjusted)
            comparison.sentence = sentence_of(comparison)
        compared.append(comparison)
    return compared


def _log_ratios(arm: Floats, baseline: Floats) -> NDArray[np.float64]:
    ours, theirs = np.asarray(arm, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    usable = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0) & (theirs > 0)
    return np.log(ours[usable]) - np.log(theirs[usable])


def _limits(pairs: NDArray[np.float64], confidence: float, seed: int) -> tuple[float, float, str]:
    n, mean = pairs.size, float(pairs.mean())
    if n >= _FEWEST_FOR_BOOTSTRAP:
        low, high = bootstrap_limits(pairs, np.ones_like(pairs), on_logs=False, confidence=confidence, seed=seed)
        if np.isfinite(low) and np.isfinite(high):
            return low, high, "paired bootstrap-t of log-ratios, sign flips, Holm"
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(pairs.std(ddof=1)) / sqrt(n)
    return mean - half, mean + half, "paired t of log-ratios, sign flips, Holm"


def _blocks_needed(pairs: NDArray[np.float64], margin: float, family: int, confidence: float) -> int | None:
    n = pairs.size
    if n < 2:  # noqa: PLR2004 - one pair says nothing of the spread
        return fewest_blocks(family, confidence) - n
    total = blocks_for(
        float(pairs.mean()), float(pairs.std(ddof=1)), n_seen=n, margin=margin, family=family, confidence=confidence
    )
    return total and total - n


def _against_noise(
    arm: Estimate, baseline: Estimate, noise: Floats, confidence: float
) -> tuple[float | None, float | None, float | None, str]:
    """Return log-ratio, half of its interval, p-value, and why they are missing."""
    changes = np.asarray(noise, dtype=np.float64)
    if not arm.value or not baseline.value or arm.value < 0 or baseline.value < 0:
        return None, None, None, "one of them has no figure above zero."
    mean = log(arm.value / baseline.value)
    if changes.size < FEWEST_CLUSTERS:
        return (
            None,
            None,
            None,
            (
                f"how equal runs differ here is known from {changes.size} of the {FEWEST_CLUSTERS} changes needed; "
                "run the same benchmark again on other days, or compare both in one run."
            ),
        )
    freedom = changes.size
    t = float(stdtrit(freedom, (1 + confidence) / 2))
    own = sqrt(sum(_log_half(figure) ** 2 for figure in (arm, baseline)))
    error = max(float(np.sqrt(np.mean(changes**2))), own / t)
    p_value = 2 * float(stdtr(freedom, -abs(mean) / error)) if error else float(mean == 0)
    return mean, t * error, p_value, ""


def _log_half(figure: Estimate) -> float:
    return log(figure.high / figure.low) / 2 if figure.low and figure.high and figure.low > 0 else 0.0


def _started(
    question: Question, margin: float, confidence: float, p_value: float | None, p_adjusted: float | None
) -> Comparison:
    return Comparison(
        metric=question.metric,
        unit=question.unit,
        arm=question.arm,
        baseline=question.baseline,
        level_index=question.level_index,
        level=question.level,
        lower_is_better=question.lower_is_better,
        n_blocks=0,
        ratio=None,
        low=None,
        high=None,
        change_percent=None,
        confidence=confidence,
        p_value=p_value,
        p_adjusted=p_adjusted,
        equivalence_margin=margin,
        verdict="inconclusive",
    )


def _set_ratio(comparison: Comparison, mean: float) -> None:
    comparison.ratio = exp(mean)
    comparison.change_percent = (comparison.ratio - 1) * 100


def _judge(comparison: Comparison, low: float, high: float, p_adjusted: float) -> None:
    comparison.low, comparison.high = exp(low), exp(high)
    comparison.verdict = verdict_of(
        low,
        high,
        p_adjusted,
        margin=comparison.equivalence_margin,
        lower_is_better=comparison.lower_is_better,
        confidence=comparison.confidence,
    )
