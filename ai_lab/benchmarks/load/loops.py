"""Sends the requests of a block: the next one when one has ended (closed), or at its own time (open)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from ai_lab.benchmarks.load.arrivals import offered_rate, offsets
from ai_lab.benchmarks.load.collector import Collector
from ai_lab.benchmarks.load.patience import Patience
from ai_lab.benchmarks.load.prompts import PromptSource
from ai_lab.benchmarks.load.schedule import Block
from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.plan import Iterations, Plan
from ai_lab.benchmarks.records import BlockDone, Record
from ai_lab.benchmarks.targets.target import Question, Target

_WARM_UPS = 1000  # the most of an arm
_WARM_UP_BLOCK = -1
_SPIN_NS = 2_000_000  # loops wait in whole milliseconds; what is left is spent asking again
_LEAD_NS = 5_000_000  # between the start of an open loop's block and its time zero
_READY_CHARACTERS = 32_000_000  # of prompts that are written before a block begins
_WRITTEN_AT_ONCE = 50


class ServerGone(Exception):
    """A server has not answered for so long that the run ends with what there is; ``str()`` tells people why."""

    def __init__(self, arm: int, reason: str) -> None:
        super().__init__(reason)
        self.arm = arm


class LoadGenerator:
    """Sends what a plan asks for, and hands over a record of every request as soon as it has ended.

    For a process that does nothing else: during a block Python's cyclic garbage collector is off, and what the process
    holds when a block begins is never looked at again.

    Args:
        plan: Of the run.
        prompts: Writes its prompts.
        on_record: Is called in the event loop with each record, cancelled ones included; it must not block.
        lag: Of the event loop, where it is watched.
        attempt: How often the run was taken up again; gives repeated warm-up requests indices of their own.
    """

    def __init__(
        self,
        plan: Plan,
        prompts: PromptSource,
        on_record: Callable[[Record], None],
        *,
        lag: LoopLag | None = None,
        attempt: int = 0,
    ) -> None:
        self._plan = plan
        self._prompts = prompts
        self._on_record = on_record
        self._lag = lag
        self._attempt = attempt
        self._patience = [Patience(is_open=not isinstance(plan.load, Iterations)) for _ in plan.arms]
        self._collector = Collector()

    async def warm_up(self, arm: int, target: Target) -> None:
        """Send the plan's warm-up requests of an arm one after the other: like measured ones, phase warmup, block -1.

        Their indices are negative.

        Raises:
            ServerGone: see ``run_block``.
            CancelledError: the task was cancelled, after the record was handed over.
        """
        for turn in range(self._plan.warmup):
            index = -1 - turn - _WARM_UPS * (arm + len(self._plan.arms) * self._attempt)
            prompt = self._prompts.warm_up(arm, turn)
            record = Record(index, _WARM_UP_BLOCK, arm, 0, "warmup", _sha256(prompt))
            await self._ask(target, prompt, record, time.perf_counter_ns())

    async def run_block(self, block: Block, target: Target) -> BlockDone:
        """Send a block's requests and return when all have ended.

        In a closed loop the intended time of a request is when its turn came. Prompts are written before the block
        begins, or where they are too long to hold, each before its request is due.

        Raises:
            ServerGone: 20 requests of this arm in a row have failed, in this block or over several, or all of them for
                5 minutes (3 at least). In an open loop time-outs and refusals of a server that has too much to do are
                a result and count for nothing here. What is in flight is cancelled, and its records are handed over
                before this is raised.
            CancelledError: the task was cancelled. Likewise; the block is not done.
        """
        requests = await self._requests(block)
        with self._collector.paused():
            await self._forget_lag()
            started_ns, cpu_seconds = time.perf_counter_ns(), time.process_time()
            is_closed = isinstance(self._plan.load, Iterations)
            offered = await (self._closed if is_closed else self._open)(block, target, requests)
            ended_ns, cpu_seconds = time.perf_counter_ns(), time.process_time() - cpu_seconds
        return BlockDone(
            block=block.number,
            arm=block.arm,
            level=block.level_index,
            started_ns=started_ns,
            ended_ns=ended_ns,
            client_cpu_seconds=cpu_seconds,
            gc_pause_ms=self._collector.pause_ms,
            loop_lag_p99_ms=self._lag.take_p99_ms() if self._lag else None,
            offered_rate=offered,
        )

    async def _forget_lag(self) -> None:
        """Let the timers run that were held up while the block was made ready, and take no notice of how late."""
        for _ in range(2):  # timers that are due come after what is waiting already
            await asyncio.sleep(0)
        if self._lag:
            self._lag.take_p99_ms()

    async def _requests(self, block: Block) -> Iterator[tuple[str, Record]]:
        """Return prompts with their records, in turn; as many as are not too much to hold are written already."""
        turns = range(block.count)
        prompts = (self._prompts.measured(block.first_index + turn, block.first_position + turn) for turn in turns)
        ready: list[str] = []
        characters = 0
        for prompt in prompts:
            ready.append(prompt)
            characters += len(prompt)
            if characters >= _READY_CHARACTERS:
                break
            if len(ready) % _WRITTEN_AT_ONCE == 0:
                await asyncio.sleep(0)  # a cancellation must not wait for all of them
        return (
            (prompt, Record(index, block.number, block.arm, block.level_index, "measured", _sha256(prompt)))
            for index, prompt in enumerate(itertools.chain(ready, prompts), block.first_index)
        )

    async def _closed(self, block: Block, target: Target, requests: Iterator[tuple[str, Record]]) -> None:
        async def work() -> None:
            for prompt, record in requests:
                await self._ask(target, prompt, record, time.perf_counter_ns())

        async with _together() as group:
            for _ in range(min(int(block.level), block.count)):
                group.create_task(work())

    async def _open(self, block: Block, target: Target, requests: Iterator[tuple[str, Record]]) -> float | None:
        times = offsets(self._plan, block)
        zero_ns = time.perf_counter_ns() + _LEAD_NS
        async with _together() as group:
            for seconds, (prompt, record) in zip(times.tolist(), requests, strict=True):
                intended_ns = zero_ns + round(1e9 * seconds)
                await _until(intended_ns)
                group.create_task(self._ask(target, prompt, record, intended_ns))
        return offered_rate(times)

    async def _ask(self, target: Target, prompt: str, record: Record, intended_ns: int) -> None:
        record.dispatched_ns = time.perf_counter_ns()
        record.intended_ns = intended_ns
        plan = self._plan
        question = Question(
            prompt, plan.output_tokens, plan.force_output_length, plan.seed, plan.arms[record.arm].options
        )
        try:
            await target.ask(question, record)
        finally:
            if record.end_ns is None:
                record.end_ns = time.perf_counter_ns()
            self._on_record(record)
        self._collector.count_request()
        if reason := self._patience[record.arm].ended_by(record):
            raise ServerGone(record.arm, f"{plan.arm_names()[record.arm]}: {reason}")


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks as a group; the first error ends all of them and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def _until(due_ns: int) -> None:
    """Return at a time of ``perf_counter_ns``, within some 0.1 ms, and let other tasks run at least once."""
    while (left_ns := due_ns - time.perf_counter_ns()) > _SPIN_NS:  # noqa: ASYNC110 - it is a time that is waited for
        await asyncio.sleep((left_ns - _SPIN_NS) / 1e9)
    await asyncio.sleep(0)
    while time.perf_counter_ns() < due_ns:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)


def _sha256(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()
