"""Arrivals are what they are called: exact, exponential, or gamma; and the same for every arm."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy
from pydantic import ValidationError

from ai_lab.benchmarks.load.arrivals import offered_rate, offsets, schedule_sha256
from ai_lab.benchmarks.load.schedule import blocks, search_block
from ai_lab.benchmarks.plan import Plan
from tests.benchmarks.scripted_target import plan

REQUESTS = 4000
RATE = 20.0


def opened(kind: str, *, arms: int = 1, seed: int = 0, burstiness: float = 1.0, requests: int = REQUESTS) -> Plan:
    load = {"mode": "open", "rates": [RATE], "requests": requests, "arrivals": kind, "burstiness": burstiness}
    return plan(arms=arms, load=load, seed=seed)


def gaps(run: Plan, arm: int = 0) -> np.ndarray:
    """Return the gaps of an arm's whole level, block after block; the first of each block counts from its start."""
    mine = [offsets(run, block) for block in blocks(run) if block.arm == arm]
    return np.concatenate([np.diff(times, prepend=0.0) for times in mine])


def test_constant_is_exact() -> None:
    run = opened("constant")
    (block,) = blocks(run)
    assert offsets(run, block).tolist() == [k / RATE for k in range(REQUESTS)]
    assert offered_rate(offsets(run, block)) == pytest.approx(RATE, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_poisson_gaps_are_exponential_and_independent_and_none_comes_again(seed: int) -> None:
    found = gaps(opened("poisson", seed=seed))
    assert scipy.stats.kstest(found, scipy.stats.expon(scale=1 / RATE).cdf).pvalue > 0.001
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 4 / np.sqrt(REQUESTS)
    assert len(np.unique(found)) == REQUESTS


def test_the_time_of_the_last_arrival_is_random_too() -> None:
    """A schedule that is stretched to end at n / rate would be no Poisson process."""
    ends = [
        offsets(run, blocks(run)[0])[-1] for run in (opened("poisson", seed=seed, requests=100) for seed in range(300))
    ]
    assert scipy.stats.kstest(ends, scipy.stats.gamma(100, scale=1 / RATE).cdf).pvalue > 0.001


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_gamma_has_its_shape(burstiness: float) -> None:
    found = gaps(opened("gamma", burstiness=burstiness))
    assert scipy.stats.kstest(found, scipy.stats.gamma(burstiness, scale=1 / (burstiness * RATE)).cdf).pvalue > 0.001
    assert found.std() / found.mean() == pytest.approx(burstiness**-0.5, rel=0.1)


def test_every_arm_gets_the_same_arrivals_in_blocks_that_are_parts_of_one_process() -> None:
    run = opened("poisson", arms=2)
    assert len(blocks(run)) > 2
    assert gaps(run, arm=0).tolist() == gaps(run, arm=1).tolist()
    assert scipy.stats.kstest(gaps(run), scipy.stats.expon(scale=1 / RATE).cdf).pvalue > 0.001
    assert len(np.unique(gaps(run))) == REQUESTS


def test_levels_and_seeds_and_steps_of_a_search_have_arrivals_of_their_own() -> None:
    two = plan(load={"mode": "open", "rates": [1.0, 1.0], "requests": 50})
    first, second = blocks(two)
    again = plan(load={"mode": "open", "rates": [1.0, 1.0], "requests": 50}, seed=1)
    assert not np.isin(offsets(two, first), offsets(two, second)).any()
    assert not np.isin(offsets(two, first), offsets(again, first)).any()
    search = plan(load={"mode": "goodput", "slo": {"ttft_ms": 100}, "requests": 50})
    steps = [offsets(search, search_block(search, step, 1.0)) for step in range(3)]
    assert all(len(step) == 50 for step in steps)
    assert all(not np.isin(one, other).any() for one, other in itertools.combinations(steps, 2))


def test_the_digest_of_a_schedule_changes_with_it_and_with_nothing_else() -> None:
    digests = {
        schedule_sha256(run, blocks(run)) for run in (opened("poisson"), opened("poisson", seed=1), opened("constant"))
    }
    assert len(digests) == 3
    assert schedule_sha256(opened("poisson"), blocks(opened("poisson"))) in digests


def test_a_closed_loop_has_no_arrivals() -> None:
    run = plan()
    with pytest.raises(ValueError, match="closed"):
        offsets(run, blocks(run)[0])


def test_the_rate_that_is_offered_is_that_of_the_times() -> None:
    assert offered_rate(np.array([0.5, 1.0, 2.0])) == 1.5
    assert offered_rate(np.array([0.0])) is None


@pytest.mark.parametrize("values", [{"rates": [1e-300]}, {"rates": [1.0], "arrivals": "gamma", "burstiness": 1e-300}])
def test_times_that_no_clock_has_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan(load={"mode": "open", **values})


def test_the_burstiest_arrivals_have_times() -> None:
    run = plan(load={"mode": "open", "rates": [1e-9], "arrivals": "gamma", "burstiness": 0.01, "requests": 10_000})
    [block] = blocks(run)
    assert np.isfinite(1e9 * offsets(run, block)).all()
