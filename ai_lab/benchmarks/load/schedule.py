"""What a run asks in which order: blocks of requests, drawn from the plan's seed alone.

Arms are compared inside of rounds. A round has one block of every arm, in random order, and the round after it has them
the other way round (ABBA), so that a machine that grows slower favours nobody. Levels follow each other in the plan's
order and are measured apart: what is compared is arms at one level, side by side in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ai_lab.benchmarks.plan import GoodputSearch, Iterations, Plan

_ORDER = 1  # tells this use of the seed from others
_MOST_BLOCKS = 1000  # of one arm and level that is not compared
_ALONE_REQUESTS = 10  # in a block of one arm, one at a time: what a restart costs at most
_ALONE_BLOCKS = 10  # of one arm with several requests at a time
_COMPARED_BLOCKS = 20  # of each arm: a difference of 3 % is found with far fewer
_COMPARED_FEWEST = 8  # with fewer pairs no difference in four metrics is certain, however large
_WAVES = 5  # times that a block fills its concurrency; its beginning and end are the same for all arms
_ALONE_WAVES = 20  # the same without arms to compare, so that beginning and end weigh little
_OPEN_REQUESTS = 20  # in a block of an open loop: queues need time to build up


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of one arm at one level that are sent together; what a resumed run repeats when it was cut short.

    Requests have the indices ``first_index`` and following. ``first_position`` is the first one's place among the
    requests of its arm and level: arms get the same text and the same arrival at the same position.
    """

    number: int  # unique in a run, in order of time
    arm: int
    level_index: int
    level: float  # concurrency, or requests per second
    first_index: int
    first_position: int
    count: int


def blocks(plan: Plan) -> list[Block]:
    """Return the blocks of a run in the order in which they are measured; none for a search, which makes its own.

    The number of blocks per arm and level is ``plan.blocks`` (never more than requests), by itself:

    - 2 arms or more, a closed loop one at a time: 20, or one for every request.
    - 2 arms or more otherwise: as many as have 5 x concurrency requests each (an open loop: 20), 20 at most. Fewer
      than 8 pairs say nothing for certain, so that it is 8 smaller ones before it is fewer.
    - 1 arm, one at a time: of 10 requests each, that is the most a restart repeats; from 10,000 requests on 1000.
    - 1 arm, several at a time: up to 10 of at least 20 x concurrency requests. All at once is how a block begins, and
      its last requests have the server to themselves: with fewer these moments would make TTFT and throughput.
    - 1 arm, an open loop: 1, for a queue that is cut in two is another queue.
    """
    if isinstance(plan.load, GoodputSearch):
        return []
    order = np.random.default_rng([plan.seed, _ORDER])
    made: list[Block] = []
    index = 0
    for level_index, level in enumerate(plan.levels()):
        sizes = _sizes(plan.load.requests, _rounds(plan, level))
        position = 0
        for count, arms in zip(sizes, _orders(len(plan.arms), order), strict=False):
            for arm in arms:
                made.append(Block(len(made), arm, level_index, level, index, position, count))
                index += count
            position += count
    return made


def search_block(plan: Plan, step: int, rate: float) -> Block:
    """Return the block that tries ``rate`` as the search's step number ``step`` (from 0)."""
    requests = plan.load.requests
    return Block(step, 0, step, rate, first_index=step * requests, first_position=step * requests, count=requests)


def _rounds(plan: Plan, level: float) -> int:
    """Return the number of blocks per arm at a level."""
    requests = plan.load.requests
    if plan.blocks is not None:
        return min(plan.blocks, requests)
    is_closed = isinstance(plan.load, Iterations)
    least = _OPEN_REQUESTS if not is_closed else 1 if level == 1 else _WAVES * int(level)
    if len(plan.arms) > 1:
        return max(min(_COMPARED_FEWEST, requests), min(_COMPARED_BLOCKS, requests // least))
    if not is_closed:
        return 1
    if level == 1:
        return min(_MOST_BLOCKS, math.ceil(requests / _ALONE_REQUESTS))
    return max(1, min(_ALONE_BLOCKS, requests // (_ALONE_WAVES * int(level))))


def _sizes(requests: int, rounds: int) -> list[int]:
    """Share out requests over rounds; sizes differ by one at most."""
    each, more = divmod(requests, rounds)
    return [each + 1] * more + [each] * (rounds - more)


def _orders(arms: int, order: np.random.Generator) -> Iterator[list[int]]:
    """Yield the arms in random order, then the other way round, and so on."""
    while True:
        drawn = order.permutation(arms).tolist()
        yield drawn
        yield drawn[::-1]
