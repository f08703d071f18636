"""What an interval of a ratio means, in one word and in a sentence for people."""

from __future__ import annotations

from math import log

from ai_lab.benchmarks.schemas import Comparison, Verdict


def verdict_of(
    low: float, high: float, p_adjusted: float, *, margin: float, lower_is_better: bool, confidence: float = 0.95
) -> Verdict:
    """Return the verdict on an interval of log-ratios (arm by baseline).

    An interval wholly inside the margin is ``equivalent``, also where it excludes zero: a difference that is certain
    and too small to matter. ``faster`` and ``slower`` need both an interval without zero and a p-value, adjusted for
    all comparisons of the run, below 1 - ``confidence``. The margin is symmetric in logarithms: 3 % is 1 / 1.03 to
    1.03.
    """
    limit = log(1 + margin)
    if -limit < low and high < limit:
        return "equivalent"
    if p_adjusted < 1 - confidence and (low > 0 or high < 0):
        return "slower" if (low > 0) == lower_is_better else "faster"
    return "inconclusive"


def is_slower_than(comparison: Comparison, limit_share: float) -> bool | None:
    """Return whether the arm is slower than the baseline by more than a limit, in shares of the metric's own figure.

    True: the verdict is slower and the whole interval lies beyond the limit. False: the whole interval lies within it.
    None: the interval holds the limit, or there is none; more blocks would tell.

    What a check in continuous integration does with None: it passes and says loudly that it could not tell and how
    many blocks would. Only evidence breaks a build; a limit that breaks it by chance is soon switched off.
    """
    if comparison.low is None or comparison.high is None:
        return None
    if comparison.lower_is_better:
        least, most = comparison.low - 1, comparison.high - 1
    else:
        least, most = 1 - comparison.high, 1 - comparison.low
    if most <= limit_share:
        return False
    return True if least > limit_share and comparison.verdict == "slower" else None


def sentence_of(comparison: Comparison) -> str:
    """Return what a finished comparison says, for people."""
    arm, baseline, metric = comparison.arm, comparison.baseline, comparison.metric
    since = "Stored runs: " if comparison.is_historical else ""
    if comparison.low is None or comparison.high is None:
        return f"{since}Cannot tell {arm} from {baseline} ({metric}): {_remedy(comparison)}."
    low, high = comparison.low - 1, comparison.high - 1
    if comparison.verdict in {"faster", "slower"}:
        return (
            f"{since}{arm} is {comparison.verdict} than {baseline} by {_by(*sorted((abs(low), abs(high))))} ({metric})."
        )
    between = f"between {_more(low)} and {_more(high)}"
    if comparison.verdict == "equivalent":
        margin = _percent(comparison.equivalence_margin)
        return f"{since}{arm} and {baseline} are equivalent within {margin} % ({metric}: {between})."
    return f"{since}Cannot tell yet {arm} from {baseline} ({metric}: {between}): {_remedy(comparison)}."


def _remedy(comparison: Comparison) -> str:
    if comparison.is_historical:
        return "only arms that take turns in one run can be told apart this closely"
    if comparison.blocks_needed is None:
        return "not even 10,000 blocks likely would"
    blocks = "block" if comparison.blocks_needed == 1 else "blocks"
    return (
        f"{comparison.blocks_needed} more {blocks} would, in a run of {comparison.n_blocks + comparison.blocks_needed}"
    )


def _by(low: float, high: float) -> str:
    first, last = _percent(low), _percent(high)
    return f"{last} %" if first == last else f"{first}-{last} %"


def _more(share: float) -> str:
    return f"{_percent(abs(share))} % {'more' if share >= 0 else 'less'}"


def _percent(share: float) -> str:
    percent = round(share * 100, 1)
    return f"{percent:.0f}" if percent >= 10 else f"{percent:g}"  # noqa: PLR2004 - two digits are enough
