"""How much one lab measures at once, and how much it lets wait."""

from __future__ import annotations

import asyncio

import pytest

from ai_lab.errors import BenchmarkQueueFull
from tests.benchmarks.benches import ON_SQLITE, opened, plan, until_measuring


@ON_SQLITE
async def test_a_program_in_a_loop_is_told_when_enough_runs_wait(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        first = await benchmarks.start(plan(blocks=100, block_seconds=1))
        await until_measuring(benchmarks, first.id)
        for number in range(100):
            last = await benchmarks.start(plan(), idempotency_key=str(number))
        with pytest.raises(BenchmarkQueueFull) as caught:
            await benchmarks.start(plan())
        assert (caught.value.status, caught.value.retry_after_seconds) == (429, 60)
        with pytest.raises(BenchmarkQueueFull):
            await benchmarks.rerun(first.id)
        assert (await benchmarks.start(plan(), idempotency_key="99")).id == last.id  # it is in there already

        await benchmarks.cancel(last.id)
        async with asyncio.timeout(30):
            while True:
                try:
                    await benchmarks.start(plan())
                except BenchmarkQueueFull:
                    await asyncio.sleep(0.05)
                else:
                    break


@ON_SQLITE
async def test_many_targets_are_measured_a_few_at_a_time(database_url: str) -> None:
    async with opened(database_url) as benchmarks:
        for number in range(6):
            await benchmarks.start(plan(blocks=3, block_seconds=0.5, url=f"http://198.51.100.{number + 1}:8000"))
        most, statuses = 0, ["queued"]
        async with asyncio.timeout(30):
            while set(statuses) != {"complete"}:
                statuses = [run.status for run in (await benchmarks.page()).data]
                most = max(most, statuses.count("running"))
                await asyncio.sleep(0.02)
        assert most == 4
