"""Entries written in the background: many at a time, none twice, none forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ai_lab.database.batches import Batch
from ai_lab.errors import Conflict, DatabaseUnavailable


class Store:
    """Keeps what is written; ``broken`` refuses all of it, ``poison`` is what it can never keep."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.writes = 0
        self.broken: Exception | None = None
        self.poison: set[int] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.tried = asyncio.Condition()

    async def write(self, items: Sequence[int]) -> None:
        self.writes += 1
        async with self.tried:
            self.tried.notify_all()
        await self.gate.wait()
        if self.broken:
            raise self.broken
        if self.poison & set(items):
            raise Conflict
        self.rows += [item for item in items if item not in self.rows]


async def test_entries_are_written_together_a_moment_later() -> None:
    store = Store()
    batch = Batch(store.write, seconds=0.01)
    for number in range(3):
        batch.add(number)
    assert store.rows == []
    assert len(batch) == 3
    async with asyncio.timeout(30), store.tried:
        await store.tried.wait()
    await batch.close()
    assert store.rows == [0, 1, 2]
    assert store.writes == 1


async def test_callers_who_wait_share_a_write_and_find_theirs_written() -> None:
    store = Store()
    store.gate.clear()
    batch = Batch(store.write, seconds=60)

    async def save(number: int) -> None:
        batch.add(number)
        assert await batch.flush()
        assert number in store.rows

    saving = [asyncio.create_task(save(number)) for number in range(50)]
    await asyncio.sleep(0.01)
    store.gate.set()
    await asyncio.gather(*saving)
    assert sorted(store.rows) == list(range(50))
    assert store.writes == 2, "the first, and all who came meanwhile"
    await batch.close()


async def test_an_entry_stays_where_the_database_fails_or_the_caller_leaves(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.broken = DatabaseUnavailable("gone")
    batch = Batch(store.write, seconds=60)
    batch.add(1)
    assert not await batch.flush()
    assert not await batch.flush()
    assert len(caplog.records) == 1, "a failure is logged once"
    store.broken = None
    store.gate.clear()
    leaving = asyncio.create_task(batch.flush())
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert len(batch) == 1
    store.gate.set()
    assert await batch.flush()
    assert store.rows == [1]
    await batch.close()


async def test_one_that_can_never_be_written_holds_nobody_up() -> None:
    store = Store()
    store.poison = {2}
    batch = Batch(store.write, seconds=60)
    for number in range(4):
        batch.add(number)
    assert await batch.flush()
    assert store.rows == [0, 1, 3]
    assert batch.lost == 1
    await batch.close()


async def test_a_write_is_tried_again_by_itself() -> None:
    store = Store()
    store.broken = OSError()
    batch = Batch(store.write, seconds=0.01)
    batch.add(1)
    async with asyncio.timeout(30):
        async with store.tried:
            await store.tried.wait_for(lambda: store.writes == 2)
            store.broken = None
            await store.tried.wait_for(lambda: store.writes == 3)
    await batch.close()
    assert (store.rows, store.writes) == ([1], 3)


async def test_the_end_writes_all_and_memory_is_bounded() -> None:
    store = Store()
    batch = Batch(store.write, seconds=60, most=1200)
    for number in range(1300):
        batch.add(number)
    assert batch.lost == 100
    await batch.close()
    assert store.rows == list(range(1200))
    assert store.writes == 6, "200 at a time"
    batch.add(0)
    assert batch.lost == 101


async def test_a_failure_is_that_of_all_who_waited_for_it() -> None:
    """Else each would wait for the tries of all before it, while another program holds the file for seconds."""
    store = Store()
    store.broken = DatabaseUnavailable("locked")
    store.gate.clear()
    batch = Batch(store.write, seconds=60)
    for number in range(10):
        batch.add(number)
    waiting = [asyncio.create_task(batch.flush()) for _ in range(10)]
    await asyncio.sleep(0.01)
    store.gate.set()
    assert await asyncio.gather(*waiting) == [False] * 10
    assert store.writes == 1
    store.broken = None
    assert await batch.flush()
    assert len(store.rows) == 10
    await batch.close()


async def test_who_has_no_time_goes_on_and_the_write_too() -> None:
    store = Store()
    store.gate.clear()
    batch = Batch(store.write, seconds=60)
    batch.add(1)
    assert not await batch.settle(0.01)
    assert store.writes == 1
    closing = asyncio.create_task(batch.close())
    store.gate.set()
    await closing
    assert (store.rows, store.writes) == ([1], 1)
