"""P-values that assume nothing but that an arm and the baseline could have changed places, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_EXACT = 16  # pairs of which every combination of signs is tried: 2^15, for the mirrored half adds nothing
_FLIPS = 20_000  # of more pairs: the smallest p-value is 1 / 20,001, small enough for Holm over 1,000 comparisons
_CHUNK = 50_000  # signs drawn at once: stays in a processor's cache


def sign_flip_p(pairs: NDArray[np.float64], *, seed: int = 0) -> float:
    """Return the two-sided p-value of the mean of log-ratios, shape (n,), under flipping each one's sign (Fisher 1935).

    Exact up to 16 pairs; of more by 20,000 random flips, counting the sample itself (Phipson and Smyth 2010).
    """
    n = pairs.size
    # Sums of the same numbers in another order differ by rounding, and must count as equal.
    seen = abs(float(pairs.sum())) - 1e-9 * float(np.abs(pairs).sum())
    if n <= _MOST_EXACT:
        bits = (np.arange(2 ** max(0, n - 1))[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * bits) @ pairs) >= seen))
    chance = np.random.default_rng(seed)
    beyond, together, whole = 1, max(1, _CHUNK // n), float(pairs.sum())
    for first in range(0, _FLIPS, together):
        rows = min(together, _FLIPS - first)
        octets = np.frombuffer(chance.bytes(rows * ((n + 7) // 8)), dtype=np.uint8)
        flipped = np.unpackbits(octets.reshape(rows, -1), axis=1, count=n)
        beyond += int(np.count_nonzero(np.abs(whole - 2 * (flipped @ pairs)) >= seen))
    return beyond / (_FLIPS + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted so that any false alarm among all is as rare as one test's (Holm 1979); None stays."""
    known = sorted((p_value, place) for place, p_value in enumerate(p_values) if p_value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p_value, place) in enumerate(known):
        largest = max(largest, min(1.0, p_value * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted
