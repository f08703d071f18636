"""How many blocks a comparison needs before it can tell.

The number is asked for after a first look, from a spread and an effect that are themselves estimated from few blocks.
Taken as they are they would promise too much (the blocks asked for then decided 50-90 % of simulated runs), so the
spread counts with the upper and the effect with the lower end of what they may be.
"""

from __future__ import annotations

from math import floor, log2, sqrt

from scipy.special import chdtri, stdtrit

from ai_lab.benchmarks.analysis.intervals import FEWEST_CLUSTERS

MOST_BLOCKS = 10_000
_POWER = 0.9
_SPREAD_SURE = 0.8  # the true spread is below the one counted with this probability


def blocks_for(
    effect: float, spread: float, *, n_seen: int, margin: float, family: int = 1, confidence: float = 0.95
) -> int | None:
    """Return how many blocks in all would likely (90 %) lead to a verdict; None: not even ``MOST_BLOCKS``.

    Enough is the smaller of two numbers: the one from which on every outcome is a verdict, because the interval lies
    inside the margin wherever it does not exclude zero; and the one at which the effect seen would be found.

    Args:
        effect: Mean log-ratio seen.
        spread: Standard deviation of the log-ratios seen.
        n_seen: Blocks that both come from, at least 2.
        margin: Of equivalence, as a log-ratio.
        family: Comparisons that are judged together (the first in Holm's order pays for all).
        confidence: Of the verdicts.
    """
    freedom = n_seen - 1
    largest_spread = spread * sqrt(freedom / float(chdtri(freedom, _SPREAD_SURE)))
    smallest_effect = abs(effect) - float(stdtrit(freedom, _POWER)) * spread / sqrt(n_seen)
    alpha = 1 - confidence

    def is_enough(n: int) -> bool:
        error = largest_spread / sqrt(n)
        beyond_zero = float(stdtrit(n - 1, 1 - alpha / family / 2)) * error
        half = float(stdtrit(n - 1, 1 - alpha / 2)) * error
        found = beyond_zero + float(stdtrit(n - 1, _POWER)) * error <= smallest_effect
        return found or beyond_zero + half <= margin

    low = max(fewest_blocks(family, confidence), n_seen + 1)
    if low > MOST_BLOCKS or not is_enough(MOST_BLOCKS):
        return None
    high = MOST_BLOCKS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def fewest_blocks(family: int, confidence: float = 0.95) -> int:
    """Return with how many blocks flipping signs can be significant at all: 6 for one comparison, 9 for eight.

    The smallest p-value of n blocks is 2 / 2^n, and Holm's correction multiplies it by up to ``family``.
    """
    return max(FEWEST_CLUSTERS, floor(log2(family / (1 - confidence)) + 1) + 1)
