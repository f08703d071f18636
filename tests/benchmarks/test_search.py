"""The search finds the highest rate that holds, says between which rates it is, and always ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ai_lab.benchmarks.load.search import RateSearch
from ai_lab.benchmarks.plan import GoodputSearch, Slo


def search(good_at: Callable[[float], float], *, requests: int = 50, **load: Any) -> RateSearch:
    """Search with a server whose share of good requests at a rate is known."""
    found = RateSearch(GoodputSearch(slo=Slo(ttft_ms=100), requests=requests, **load))
    while (rate := found.next_rate()) is not None:
        found.add(round(requests * good_at(rate)), requests)
    return found


@pytest.mark.parametrize("capacity", [0.3, 0.5, 0.9, 7.0, 123.0, 999.0])
@pytest.mark.parametrize("precision", [0.02, 0.1, 0.5])
def test_a_sharp_knee_is_found_to_the_precision(capacity: float, precision: float) -> None:
    found = search(lambda rate: float(rate <= capacity), precision=precision)
    highest = found.highest_rate
    assert highest.value
    assert highest.high
    assert highest.value <= capacity < highest.high
    assert highest.high - highest.value <= precision * highest.high
    assert [step.level_index for step in found.steps] == list(range(len(found.steps)))
    assert len(found.steps) <= 20


def test_rates_are_doubled_and_then_halved_between() -> None:
    found = search(lambda rate: float(rate <= 5), start_rate=1, precision=0.2)
    assert [step.rate for step in found.steps] == [1, 2, 4, 8, 6, 5]
    assert [step.holds for step in found.steps] == [True, True, True, False, False, True]
    assert found.highest_rate.value == 5
    assert found.reason == "5 requests per second hold and 6 do not."


def test_it_ends_at_the_most_rate() -> None:
    found = search(lambda _: 1.0, start_rate=1, most_rate=10)
    assert [step.rate for step in found.steps] == [1, 2, 4, 8, 10]
    assert (found.highest_rate.value, found.highest_rate.high) == (10, None)
    assert "still holds" in found.reason


def test_it_ends_where_nothing_holds() -> None:
    found = search(lambda _: 0.5, start_rate=64)
    assert [step.rate for step in found.steps] == [64, 32, 16, 8, 4, 2, 1]
    assert found.highest_rate.value is None
    assert found.highest_rate.reason == "Not even 1 requests per second hold."


def test_the_share_decides_and_its_interval_is_told() -> None:
    found = RateSearch(GoodputSearch(slo=Slo(ttft_ms=100, share=0.9), requests=50))
    step = found.add(45, 50)
    assert step.holds
    assert (step.share_good.value, step.share_good.method) == (0.9, "wilson")
    assert step.share_good.low is not None
    assert step.share_good.low < 0.9
    assert not found.add(44, 50).holds


@pytest.mark.parametrize("seed", range(20))
def test_it_ends_whatever_the_results(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311 - no secret
    found = search(lambda _: drawn.choice([0.0, 1.0]), precision=0.011, start_rate=1e-6)
    assert len(found.steps) <= 32
    assert found.next_rate() is None
    held = [step.rate for step in found.steps if step.holds]
    assert found.highest_rate.value == (max(held) if held else None)


def test_a_tiny_first_rate_does_not_double_forever() -> None:
    found = search(lambda _: 1.0, start_rate=1e-9)
    assert len(found.steps) == 32
    assert "32 rates were tried" in found.reason


def test_a_search_that_is_taken_up_again_goes_on_where_it_was() -> None:
    whole = search(lambda rate: float(rate <= 5))
    again = RateSearch(GoodputSearch(slo=Slo(ttft_ms=100), requests=50))
    for step in whole.steps[:4]:
        assert again.next_rate() == step.rate
        again.add(round(50 * (step.share_good.value or 0)), 50)
    assert again.next_rate() == whole.steps[4].rate


def test_no_result_is_no_step() -> None:
    found = RateSearch(GoodputSearch(slo=Slo(ttft_ms=100)))
    for good, requests in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no result"):
            found.add(good, requests)
