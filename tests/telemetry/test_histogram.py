"""Histograms of durations: quantiles within 1 %, merging in any order, and bytes that show damage."""

import math
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_lab.telemetry.operations.histogram import QUANTILE_ERROR, DamagedCounts, DurationHistogram, pack, unpack

SHARES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
DURATIONS = st.floats(min_value=0, max_value=30 * 86400)
CHANCE = random.Random(20261121)  # noqa: S311 - no secret

DISTRIBUTIONS: dict[str, Callable[[], float]] = {
    "lognormal": lambda: CHANCE.lognormvariate(-4, 1.5),
    "uniform": lambda: CHANCE.uniform(0.001, 0.2),
    "exponential": lambda: CHANCE.expovariate(100) + 1e-6,
    "two peaks": lambda: CHANCE.gauss(0.002, 0.0001) if CHANCE.random() < 0.9 else CHANCE.gauss(3, 0.1),
    "all equal": lambda: 0.0123,
    "microseconds to days": lambda: 10 ** CHANCE.uniform(-6, 6),
}


def histogram(values: Iterable[float]) -> DurationHistogram:
    made = DurationHistogram()
    for value in values:
        made.record(value)
    return made


def pairs(made: DurationHistogram) -> list[tuple[int, int]]:
    return sorted(made.counts().items())


def median(made: DurationHistogram) -> float | None:
    return made.quantiles((0.5,))[0]


def stored_and_read(made: DurationHistogram) -> DurationHistogram:
    _, (again,) = unpack(pack(None, [made]))
    return again


def exact(ranked: list[float], share: float) -> float:
    return ranked[max(1, math.ceil(share * len(ranked))) - 1]


def is_near(found: float | None, wanted: float) -> bool:
    return found is not None and abs(found - wanted) <= wanted * QUANTILE_ERROR * (1 + 1e-9)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_within_one_percent(name: str) -> None:
    values = sorted(DISTRIBUTIONS[name]() for _ in range(20_000))
    made = histogram(values)
    assert QUANTILE_ERROR < 0.01
    for share, found in zip(SHARES, made.quantiles(SHARES), strict=True):
        assert is_near(found, exact(values, share)), (name, share)
    assert (made.count, made.minimum, made.maximum) == (len(values), values[0], values[-1])
    assert made.sum == pytest.approx(sum(values))


def test_a_million_durations_have_the_quantiles_of_their_sorted_list() -> None:
    values = [CHANCE.lognormvariate(-4, 1.5) for _ in range(1_000_000)]
    made = histogram(values)
    values.sort()
    for share, found in zip(SHARES, made.quantiles(SHARES), strict=True):
        assert is_near(found, exact(values, share)), share
    assert len(made.counts()) < 1000
    assert len(pack(None, [made])) < 4000


@given(st.lists(st.floats(min_value=1e-6, max_value=30 * 86400), min_size=1), st.floats(min_value=0, max_value=1))
def test_any_quantile_of_any_durations_is_within_one_percent(values: list[float], share: float) -> None:
    assert is_near(histogram(values).quantiles((share,))[0], exact(sorted(values), share))


@given(st.lists(DURATIONS), st.lists(DURATIONS), st.lists(DURATIONS))
def test_merging_is_recording_together_in_any_order(one: list[float], two: list[float], three: list[float]) -> None:
    together = histogram(one + two + three)
    left, right = histogram(one), stored_and_read(histogram(two))
    left.merge(right)
    left.merge(histogram(three))
    right.merge(histogram(three))
    first = histogram(one)
    first.merge(right)
    for merged in (left, first):
        assert merged.counts() == together.counts()
        assert (merged.minimum, merged.maximum) == (together.minimum, together.maximum)
        assert merged.sum == pytest.approx(together.sum)


@given(st.lists(DURATIONS))
def test_bytes_bring_back_the_same(values: list[float]) -> None:
    made = histogram(values)
    again = stored_and_read(made)
    assert pairs(again) == pairs(made)
    assert (again.sum, again.minimum, again.maximum) == (made.sum, made.minimum, made.maximum)
    assert again.count == len(values)
    assert median(again) == median(made)


def test_what_is_no_duration_does_no_harm() -> None:
    made = histogram([-1.0, 0.0, math.inf, math.nan, 1e-9])
    assert made.count == 4
    assert (made.minimum, made.maximum) == (0.0, 30 * 86400.0)
    assert median(made) == pytest.approx(1e-6, rel=0.01)
    assert stored_and_read(made).count == 4
    assert median(DurationHistogram()) is None


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(foreign: bytes) -> None:
    with pytest.raises(DamagedCounts):
        unpack(foreign)


@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    recorded = histogram([0.001, 0.002, 0.5, 7.0] * 20)
    sound = pack(None, [recorded])
    position = data.draw(st.integers(0, len(sound) - 1))
    damaged = bytearray(sound)
    damaged[position] ^= data.draw(st.integers(1, 255))
    for cut in (sound[:position], sound + b"\x00"):
        with pytest.raises(DamagedCounts):
            unpack(cut)
    try:
        assert [pairs(one) for one in unpack(bytes(damaged))[1]] == [pairs(recorded)]
    except DamagedCounts as error:
        assert str(error)  # noqa: PT017 - some bits of the compressed form mean nothing, so both are right


def test_contradicting_figures_are_refused() -> None:
    """Only a fault of ours could write them; it must not be summed up with the rest."""
    out_of_range, reversed_, negative = (histogram([0.001, 0.5]) for _ in range(3))
    out_of_range.counts()[2000] = 1
    reversed_.minimum = 1.0
    negative.sum = -1.0
    for wrong in (out_of_range, reversed_, negative):
        with pytest.raises(DamagedCounts):
            unpack(pack(None, [wrong]))
