"""When requests of an open loop are to be sent, whatever the server does.

All arrivals of a level come from one generator that is seeded by the plan's seed and the level and by nothing else, so
that every arm gets the same ones. Nothing is rescaled afterwards: the last arrival of a Poisson process is as random
as the first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.load.schedule import Block
from ai_lab.benchmarks.plan import Iterations, OpenLoop, Plan

_ARRIVALS = 2  # tells this use of the seed from others


def offsets(plan: Plan, block: Block) -> NDArray[np.float64]:
    """Return the intended times of a block's requests in seconds from its start, shape (count,), ascending.

    constant: the k-th is exactly k / rate. poisson: gaps are exponential with mean 1 / rate. gamma: gaps have the shape
    ``burstiness`` and the mean 1 / rate, so that their coefficient of variation is 1 / sqrt(burstiness). The first of
    these comes after a gap too, as in a process that has always been going on. A search has Poisson arrivals.

    Raises:
        ValueError: the plan has a closed loop, where a request is due when the one before it has ended.
    """
    load = plan.load
    if isinstance(load, Iterations):
        raise ValueError("A closed loop has no arrivals.")  # noqa: TRY004 - the kind of plan is a value
    kind = load.arrivals if isinstance(load, OpenLoop) else "poisson"
    if kind == "constant":
        return np.arange(block.count) / block.level
    generator = np.random.default_rng([plan.seed, _ARRIVALS, block.level_index])
    if isinstance(load, OpenLoop) and kind == "gamma":
        gaps = generator.gamma(load.burstiness, 1 / (load.burstiness * block.level), load.requests)
    else:
        gaps = generator.exponential(1 / block.level, load.requests)
    first = block.first_position if isinstance(load, OpenLoop) else 0
    return np.cumsum(gaps[first : first + block.count])


def offered_rate(intended: NDArray[np.float64]) -> float | None:
    """Return the requests per second that ``offsets`` (shape (count,)) ask for; None for a single one at 0."""
    gaps = len(intended) - (1 if len(intended) and intended[0] == 0 else 0)
    return gaps / float(intended[-1]) if gaps > 0 else None


def schedule_sha256(plan: Plan, measured: Sequence[Block]) -> str:
    """Return a digest of the order, sizes and intended times of blocks: equal ones ask the same at equal times."""
    digest = hashlib.sha256()
    for block in measured:
        digest.update(json.dumps(asdict(block), sort_keys=True).encode())
        if not isinstance(plan.load, Iterations):
            digest.update(offsets(plan, block).astype("<f8").tobytes())
    return digest.hexdigest()
