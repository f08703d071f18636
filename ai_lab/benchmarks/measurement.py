"""One run in the process that measures it: what happens in which order, and what is told of it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any, TypeVar

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.totals import is_good
from ai_lab.benchmarks.events import (
    BlockMeasured,
    Event,
    PackedSamples,
    RecordsEnded,
    SampleKind,
    SamplesTaken,
    StateChanged,
)
from ai_lab.benchmarks.job import Job
from ai_lab.benchmarks.load.arrivals import schedule_sha256
from ai_lab.benchmarks.load.lengths import calibrate as calibrate_length
from ai_lab.benchmarks.load.loops import LoadGenerator
from ai_lab.benchmarks.load.prompts import Length, PromptSource
from ai_lab.benchmarks.load.schedule import Block, blocks, search_block
from ai_lab.benchmarks.load.search import RateSearch
from ai_lab.benchmarks.observation.instrument import calibrate as calibrate_instrument
from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.observation.provenance import host_provenance
from ai_lab.benchmarks.observation.side_sampler import SideSampler, watch_idle
from ai_lab.benchmarks.plan import GoodputSearch, Iterations, Plan
from ai_lab.benchmarks.records import BlockDone, Record, Sample, shift
from ai_lab.benchmarks.schemas import Instrument, Progress
from ai_lab.benchmarks.targets import Address, Target, open_target
from ai_lab.benchmarks.targets.answer import count
from ai_lab.errors import LabError
from ai_lab.settings import Settings

Stamped = TypeVar("Stamped", Record, Sample, BlockDone)

_TELL_SECONDS = 1.0
_PROGRESS_SECONDS = 0.25
_CLOCK_STEP_NS = 10_000_000_000  # a wall clock that is set moves by less, a restart of the machine by more
_FEWEST_STREAMS, _MOST_STREAMS = 8, 1024  # of an open loop, where the instrument is measured
_USUAL_CHUNK_RATE = 50.0  # per second and stream, where no warm-up has shown the real one


class Measurement:
    """Measures what a job has left to measure; ``data`` is everything there is at any moment.

    Args:
        job: the run, with what an earlier process measured of it.
        settings: of the lab.
        tell: takes the events; it must not block.
    """

    def __init__(self, job: Job, settings: Settings, tell: Callable[[Event], None]) -> None:
        self.data = stored_data(job)
        self._plan = plan = job.run.plan
        self._addresses = [Address.from_dict(values) for values in job.addresses]
        self._settings = settings
        self._tell = tell
        self._state = dict(job.run.state)
        attempt = self._state.get("attempts", 0)
        length = Length(**self._state["length"]) if "length" in self._state else None
        self._lag = LoopLag()
        self._prompts = PromptSource(plan, job.run.run_id, attempt=attempt, length=length)
        self._generator = LoadGenerator(plan, self._prompts, self._ended, lag=self._lag, attempt=attempt)
        self._schedule = blocks(plan)
        self._names = plan.arm_names()
        self._targets: list[Target] = []
        self._pending: list[Record] = []
        self._shift_ns = self._clock_shift_ns()
        self._measuring_since = 0.0
        measured = [record for record in self.data.records if record.phase == "measured"]
        self._done_before = len(measured)
        self._progress = Progress(
            phase="preparing",
            total=self.data.expected_requests,
            done=len(measured),
            failed=sum(record.status not in {"ok", "short"} for record in measured),
            blocks_done=len(self.data.blocks),
            blocks_total=len(self._schedule),
        )
        self._progress_at = 0.0

    async def run(self) -> None:
        """Measure everything; what was measured until an error or a cancellation is in ``data`` and was told.

        Raises:
            LabError: a server cannot be reached, has not the model, or cannot do what the plan says.
            ServerGone: a server stopped answering in mid-run.
        """
        self._remember(attempts=self._state.get("attempts", 0) + 1, clock_offset_ns=self._state["clock_offset_ns"])
        async with AsyncExitStack() as closing:
            closing.callback(self._say, "analysing")
            for name, address, arm in zip(self._names, self._addresses, self._plan.arms, strict=True):
                self._say("preparing", arm=name)
                target = await open_target(
                    address, arm, timeout_seconds=self._plan.timeout_seconds, settings=self._settings
                )
                closing.push_async_callback(target.close)
                self._targets.append(target)
            await self._describe("before")
            await self._load_cold()
            sampler = SideSampler(self._server_pids, targets_are_local=bool(self._servers_here()), loop_lag=self._lag)
            self._lag.start()
            closing.callback(self._lag.close)
            sampler.start()
            closing.callback(sampler.close)
            await self._idle(sampler, "idle_before")
            await self._set_length()
            for number, target in enumerate(self._targets):
                self._say("warm-up", arm=self._names[number])
                await self._generator.warm_up(number, target)
            await self._calibrate()
            sampler.take()  # what was before the measuring is no part of it
            async with self._telling(sampler):
                await self._measure()
            await self._idle(sampler, "idle_after")
            await self._describe("after")

    def _clock_shift_ns(self) -> int:
        """Return what makes stamps of now comparable to those of before the machine was started anew: mostly 0."""
        offset_ns = time.time_ns() - time.perf_counter_ns()
        shift_ns = offset_ns - int(self._state.setdefault("clock_offset_ns", offset_ns))
        return shift_ns if abs(shift_ns) > _CLOCK_STEP_NS else 0

    def _servers_here(self) -> list[Target]:
        """Return the targets that have processes of their own on this machine."""
        # A provider in Python works inside this process: there is nothing else to look for.
        return [
            target
            for target, address in zip(self._targets, self._addresses, strict=True)
            if target.is_local and address.protocol != "provider"
        ]

    def _server_pids(self) -> list[int]:
        """Return the processes of all servers under test; none where one's are not found, which would be others."""
        found = [target.process_ids() for target in self._servers_here()]
        return [pid for pids in found for pid in pids] if all(found) else []

    async def _describe(self, when: str) -> None:
        """Ask the servers what they are, and say what is asked of them."""
        provenance = self.data.provenance
        if when == "before":
            provenance |= await asyncio.to_thread(host_provenance)
            provenance["seeds"] = {"plan": self._plan.seed}
            if self._schedule:
                provenance["schedule_sha256"] = schedule_sha256(self._plan, self._schedule)
        described = provenance.setdefault("targets", {})
        for name, target in zip(self._names, self._targets, strict=True):
            described.setdefault(name, {"is_local": target.is_local})
            if when == "after" or "before" not in described[name]:  # of a resumed run the first one counts
                try:
                    described[name][when] = await target.describe()
                except LabError as error:
                    if when == "before":
                        raise
                    described[name][when] = {"unavailable": error.detail}
        self._remember(provenance=provenance)

    async def _load_cold(self) -> None:
        for number, target in enumerate(self._targets):
            seconds = self.data.cold_loads.setdefault(number, [])
            while len(seconds) < self._plan.cold_loads:
                self._say("cold loads", arm=self._names[number])
                took = await target.cold_load()
                if took is None:
                    break
                seconds.append(took)
                self._remember(cold_loads={str(arm): loads for arm, loads in self.data.cold_loads.items()})

    async def _idle(self, sampler: SideSampler, kind: SampleKind) -> None:
        if self._plan.idle_seconds:
            self._say("idle")
            samples = self._shifted(await watch_idle(sampler, self._plan.idle_seconds))
            (self.data.idle_before if kind == "idle_before" else self.data.idle_after).extend(samples)
            self._tell(SamplesTaken(PackedSamples.of(kind, samples)))

    async def _set_length(self) -> None:
        self._say("prompts")
        if "length" not in self._state:
            targets = dict(zip(self._names, self._targets, strict=True))
            self._prompts.length = await calibrate_length(
                self._plan, self._prompts, targets, context_tokens=self._context_tokens()
            )
        self.data.provenance["prompts"] = self._prompts.facts()
        self._remember(length=self._prompts.length.to_dict(), provenance=self.data.provenance)

    def _context_tokens(self) -> int | None:
        """Return the context that the first arm's requests will have; None where it is not known."""
        before = self.data.provenance["targets"][self._names[0]].get("before", {})
        if before.get("server") == "ollama":  # what it has loaded now is loaded anew where a request wants another one
            return count(self._plan.arms[0].options, "num_ctx") or None
        return count(before, "context_tokens") or None

    async def _calibrate(self) -> None:
        """Measure the instrument at the pace that the warm-up has shown."""
        has_sockets = any(address.protocol != "provider" for address in self._addresses)
        if not self._plan.calibration_seconds or self.data.instrument or not has_sockets:
            return
        self._say("calibrating")
        self.data.instrument = await calibrate_instrument(
            self._plan.calibration_seconds, self._streams(), self._chunk_rate()
        )
        self._remember(instrument=self.data.instrument.model_dump())

    def _streams(self) -> int:
        """Return how many requests will be under way at most, in an open loop as long as the server keeps up."""
        load = self._plan.load
        if isinstance(load, Iterations):
            return max(load.concurrency)
        took = [
            (record.end_ns - record.sent_ns) / 1e9 for record in self.data.records if record.sent_ns and record.end_ns
        ]
        under_way = max(self._plan.levels()) * median(took or [0.0])  # Little's law
        return min(_MOST_STREAMS, max(_FEWEST_STREAMS, math.ceil(under_way)))

    def _chunk_rate(self) -> float:
        """Return the chunks per second of a stream of the fastest arm."""
        rates: dict[int, list[float]] = {}
        for record in self.data.records:
            if len(record.chunk_ns) > 1 and record.chunk_ns[-1] > record.chunk_ns[0]:
                seconds = (record.chunk_ns[-1] - record.chunk_ns[0]) / 1e9
                rates.setdefault(record.arm, []).append((len(record.chunk_ns) - 1) / seconds)
        return max((median(one) for one in rates.values()), default=_USUAL_CHUNK_RATE)

    async def _measure(self) -> None:
        self._measuring_since = time.monotonic()
        done = {block.block for block in self.data.blocks}
        if isinstance(self._plan.load, GoodputSearch):
            await self._search(self._plan.load, done)
            return
        for block in self._schedule:
            if block.number not in done:
                await self._measure_block(block)

    async def _search(self, load: GoodputSearch, done: set[int]) -> None:
        search = RateSearch(load)
        while (rate := search.next_rate()) is not None:
            block = search_block(self._plan, len(search.steps), rate)
            self._progress.blocks_total = block.number + 1
            self._progress.total = self.data.expected_requests = (block.number + 1) * block.count
            if (rate, block.level_index) not in self.data.searched:
                self.data.searched.append((rate, block.level_index))
                self._remember(searched=self.data.searched)
            if block.number not in done:
                await self._measure_block(block)
            records = [one for one in self.data.records if one.block == block.number and one.phase == "measured"]
            search.add(sum(is_good(record, load.slo, from_intended=True) for record in records), len(records))
        self.data.provenance["search"] = search.reason

    async def _measure_block(self, block: Block) -> None:
        self._say("measuring", arm=self._names[block.arm], level=block.level)
        done = await self._generator.run_block(block, self._targets[block.arm])
        self._flush()
        self._shifted([done])
        self.data.blocks.append(done)
        self._tell(BlockMeasured(done))
        self._progress.blocks_done += 1
        self._say("measuring")

    def _ended(self, record: Record) -> None:
        """Take in a request that has ended, in the event loop."""
        self._shifted([record])
        self.data.records.append(record)
        self._pending.append(record)
        if record.phase != "measured":
            return
        self._progress.done += 1
        self._progress.failed += record.status not in {"ok", "short"}
        if record.first_token_ns and record.sent_ns:
            self._progress.ttft_ms = (record.first_token_ns - record.sent_ns) / 1e6
        if record.last_token_ns and record.first_token_ns and record.last_token_ns > record.first_token_ns:
            seconds = (record.last_token_ns - record.first_token_ns) / 1e9
            self._progress.decode_tps = ((record.completion_tokens or len(record.chunk_ns)) - 1) / seconds
        if time.monotonic() - self._progress_at >= _PROGRESS_SECONDS:
            self._say("measuring")

    @asynccontextmanager
    async def _telling(self, sampler: SideSampler) -> AsyncIterator[None]:
        """Tell of requests and of the machine about once a second, and in the end of the rest."""

        def tell_all() -> None:
            self._flush()
            if samples := self._shifted(sampler.take()):
                self.data.samples.extend(samples)
                self._tell(SamplesTaken(PackedSamples.of("busy", samples)))

        async def tell_often() -> None:
            while True:
                await asyncio.sleep(_TELL_SECONDS)
                tell_all()

        telling = asyncio.create_task(tell_often())
        try:
            yield
        finally:
            telling.cancel()
            tell_all()

    def _shifted(self, stamped: list[Stamped]) -> list[Stamped]:
        if self._shift_ns:
            for one in stamped:
                shift(one, self._shift_ns)
        return stamped

    def _flush(self) -> None:
        if self._pending:
            self._tell(RecordsEnded(self._pending))
            self._pending = []

    def _remember(self, **state: Any) -> None:
        self._state |= state
        self._tell(StateChanged(state))

    def _say(self, phase: str, *, arm: str | None = None, level: float | None = None) -> None:
        self._progress.phase = phase
        self._progress.arm = arm or self._progress.arm
        self._progress.level = level or self._progress.level
        measured = self._progress.done - self._done_before
        if phase == "measuring" and measured > 0:
            pace = (time.monotonic() - self._measuring_since) / measured
            self._progress.seconds_left = round(pace * max(0, self._progress.total - self._progress.done), 1)
        self._progress_at = time.monotonic()
        self._tell(self._progress.model_copy())


def stored_data(job: Job) -> RunData:
    """Return what a job brings along of its run, ready to be analysed."""
    run, state = job.run, job.run.state
    plan: Plan = run.plan
    records = [one.unpack() for one in run.records if one.phase != "discarded"]
    samples: dict[str, list[Sample]] = {}
    for packed in run.samples:
        samples.setdefault(packed.kind, []).extend(packed.unpack())
    searched = [(float(rate), int(index)) for rate, index in state.get("searched", [])]
    is_search = isinstance(plan.load, GoodputSearch)
    levels = max(1, len(searched)) if is_search else len(plan.arms) * len(plan.levels())
    return RunData(
        plan=plan,
        run_id=run.run_id,
        records=records,
        blocks=[dataclasses.replace(block) for block in run.blocks],
        samples=samples.get("busy", []),
        idle_before=samples.get("idle_before", []),
        idle_after=samples.get("idle_after", []),
        instrument=Instrument.model_validate(state["instrument"]) if state.get("instrument") else None,
        provenance=dict(state.get("provenance", {})),
        cold_loads={int(arm): list(seconds) for arm, seconds in state.get("cold_loads", {}).items()},
        searched=searched,
        was_cancelled=job.outcome == "cancelled",
        expected_requests=levels * plan.load.requests,
    )
