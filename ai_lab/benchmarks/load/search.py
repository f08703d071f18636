"""The search for the highest rate that keeps a stated SLO: doubling while it holds, then halving the interval.

A rate holds when the share of good requests is at least ``slo.share``. The share itself decides and not an end of its
interval: with 50 requests, all of them good, Wilson's interval begins at 0.93, so that 0.95 could never be shown. The
interval is reported beside it; where it is too wide to tell, more requests per rate are the remedy.
"""

from __future__ import annotations

from ai_lab.benchmarks.analysis.intervals import share_interval
from ai_lab.benchmarks.plan import GoodputSearch
from ai_lab.benchmarks.schemas import Estimate, SearchStep

_MOST_STEPS = 32
_MOST_HALVINGS = 6  # below a first rate that does not hold


class RateSearch:
    """Says which rate to try next, and in the end which was the highest that holds. Measuring is up to the caller.

    A resumed search is given the counts of its complete blocks in their order, and goes on from there.
    """

    def __init__(self, load: GoodputSearch) -> None:
        self.steps: list[SearchStep] = []
        self._load = load
        self._holds = 0.0  # the highest rate that held
        self._fails: float | None = None  # the lowest that did not
        self._end: str | None = None
        self._next = load.start_rate

    def next_rate(self) -> float | None:
        """Return the rate to be measured as step ``len(steps)``, or None at the end."""
        return self._next if self._end is None else None

    def add(self, good: int, requests: int) -> SearchStep:
        """Take in what became of ``next_rate``: of its ``requests`` so many were good.

        Raises:
            ValueError: the search has ended, or there were no requests.
        """
        if self._end is not None or requests < 1 or not 0 <= good <= requests:
            raise ValueError(f"{good} of {requests} requests are no result of a step.")
        rate, holds = self._next, good / requests >= self._load.slo.share
        step = SearchStep(
            rate=rate, share_good=share_interval(good, requests), holds=holds, level_index=len(self.steps)
        )
        self.steps.append(step)
        if holds:
            self._holds = rate
        else:
            self._fails = rate
        self._decide()
        return step

    @property
    def highest_rate(self) -> Estimate:
        """The highest rate that held (requests per second), between it and the lowest above it that did not."""
        if not self._holds:
            return Estimate(reason=self.reason)
        return Estimate(
            value=self._holds, low=self._holds, high=self._fails, method="doubling and halving", reason=self._end
        )

    @property
    def reason(self) -> str:
        """Why the search ended, a sentence for people."""
        return self._end or "The search has not ended."

    def _decide(self) -> None:
        load, low, high = self._load, self._holds, self._fails
        if high is None:
            if low >= load.most_rate:
                self._end = f"The highest rate that was to be tried, {low:g} per second, still holds."
            self._next = min(2 * low, load.most_rate)
        elif not low and len(self.steps) > _MOST_HALVINGS:
            self._end = f"Not even {high:g} requests per second hold."
        elif low and high - low <= load.precision * high:
            self._end = f"{low:g} requests per second hold and {high:g} do not."
        else:
            self._next = (low + high) / 2
        if self._end is None and len(self.steps) >= _MOST_STEPS:
            self._end = f"{_MOST_STEPS} rates were tried; the answer is between {low:g} and {high or load.most_rate:g}."
