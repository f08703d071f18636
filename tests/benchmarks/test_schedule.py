"""Blocks: every request once, arms side by side, and no arm always first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ai_lab.benchmarks.load.schedule import Block, blocks, search_block
from ai_lab.benchmarks.plan import Plan
from tests.benchmarks.scripted_target import plan


def closed(requests: int, concurrency: list[int] | None = None, **values: Any) -> Plan:
    return plan(load={"mode": "closed", "requests": requests, "concurrency": concurrency or [1]}, **values)


def opened(requests: int, **values: Any) -> Plan:
    return plan(load={"mode": "open", "requests": requests, "rates": [2.0, 4.0]}, **values)


def sizes(run: Plan, *, arm: int = 0, level: int = 0) -> list[int]:
    return [block.count for block in blocks(run) if (block.arm, block.level_index) == (arm, level)]


@pytest.mark.parametrize(
    "run",
    [
        closed(1),
        closed(7, [1, 2, 64], arms=3),
        closed(333, [1, 4, 16], arms=2),
        closed(25, [8, 1]),
        opened(97, arms=2),
        opened(3, arms=8),
        closed(50, arms=2, blocks=7),
        closed(5, blocks=100),
    ],
)
def test_every_position_of_every_arm_and_level_is_measured_once(run: Plan) -> None:
    made = blocks(run)
    assert [block.number for block in made] == list(range(len(made)))
    indices = [index for block in made for index in range(block.first_index, block.first_index + block.count)]
    assert indices == list(range(run.load.requests * len(run.levels()) * len(run.arms)))
    for arm in range(len(run.arms)):
        for level_index, level in enumerate(run.levels()):
            mine = [block for block in made if (block.arm, block.level_index) == (arm, level_index)]
            assert {block.level for block in mine} == {level}
            assert all(block.count for block in mine)
            assert [position for block in mine for position in _positions(block)] == list(range(run.load.requests))
    assert [block.level_index for block in made] == sorted(block.level_index for block in made)


def _positions(block: Block) -> range:
    return range(block.first_position, block.first_position + block.count)


@pytest.mark.parametrize("arms", [2, 3, 5])
def test_rounds_have_every_arm_once_and_each_second_one_is_the_first_backwards(arms: int) -> None:
    made = blocks(closed(20, arms=arms))
    rounds = [[block.arm for block in made[first : first + arms]] for first in range(0, len(made), arms)]
    assert len(rounds) == 20
    assert all(sorted(one) == list(range(arms)) for one in rounds)
    assert all(len({block.first_position for block in made[n : n + arms]}) == 1 for n in range(0, len(made), arms))
    assert all(rounds[number + 1] == rounds[number][::-1] for number in range(0, 20, 2))


def test_no_arm_is_always_first_and_the_order_is_of_the_seed() -> None:
    orders = [tuple(block.arm for block in blocks(closed(20, arms=3, seed=seed))) for seed in range(100)]
    assert len(set(orders)) > 90
    first = Counter(order[0] for order in orders)
    assert all(first[arm] > 15 for arm in range(3))
    assert orders[3] == tuple(block.arm for block in blocks(closed(20, arms=3, seed=3)))


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        # One arm, one at a time: what a restart costs is 10 requests at most.
        (closed(1), [1]),
        (closed(10), [10]),
        (closed(25), [9, 8, 8]),
        # Several at a time: blocks are long against their beginning and end.
        (closed(300, [8]), [300]),
        (closed(500, [8]), [167, 167, 166]),
        (closed(30, [8]), [30]),
        (closed(1000, [2]), [100] * 10),
        # Compared: up to 20 pairs, at least 8.
        (closed(10, arms=2), [1] * 10),
        (closed(100, arms=2), [5] * 20),
        (closed(3, arms=2), [1] * 3),
        (closed(100, [8], arms=2), [13] * 4 + [12] * 4),
        (closed(1000, [8], arms=2), [50] * 20),
        # Open: a queue is not cut unless there is something to compare.
        (opened(1000), [1000]),
        (opened(100, arms=2), [13] * 4 + [12] * 4),
        (opened(40, arms=2), [5] * 8),
        (opened(400, arms=2), [20] * 20),
        # As the plan says.
        (closed(10, blocks=3), [4, 3, 3]),
        (opened(100, blocks=2), [50, 50]),
        (closed(100, arms=2, blocks=200), [1] * 100),
    ],
)
def test_sizes_of_blocks(run: Plan, expected: list[int]) -> None:
    assert sizes(run) == expected


def test_the_largest_run_is_planned() -> None:
    assert sum(block.count for block in blocks(closed(100_000))) == 100_000
    assert sum(block.count for block in blocks(closed(50_000, arms=2, blocks=10_000))) == 100_000


def test_a_search_makes_its_own_blocks() -> None:
    run = plan(load={"mode": "goodput", "slo": {"ttft_ms": 100}, "requests": 50})
    assert blocks(run) == []
    first, second = search_block(run, 0, 0.5), search_block(run, 1, 1.0)
    assert (first.number, first.level_index, first.level, first.first_index) == (0, 0, 0.5, 0)
    assert (second.number, second.level_index, second.level, second.first_index) == (1, 1, 1.0, 50)
    assert second.first_position == 50
