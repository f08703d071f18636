"""Whole runs: asked of the service, measured by the real process, stored, analysed and reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ai_lab.benchmarks.events import SampleKind
from ai_lab.benchmarks.plan import Arm, Iterations, Plan, Prompts
from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.schemas import Cell, Reason, ReportBody, Run
from ai_lab.benchmarks.service import Benchmarks
from tests.benchmarks.benches import opened

#: What is done while a run is measured, once the first request has ended.
Meanwhile = Callable[[Benchmarks, str], Awaitable[None]]


@dataclass(frozen=True)
class Told:
    """A run that has ended, with all that is known of it."""

    run: Run
    records: list[Record]
    samples: list[tuple[SampleKind, list[Sample]]]
    markdown: str

    @property
    def report(self) -> ReportBody:
        """Return its report, which there must be."""
        assert self.run.report, self.run.error
        return self.run.report

    @property
    def cell(self) -> Cell:
        """Return its only cell."""
        (cell,) = self.report.cells
        return cell

    def codes(self, *, notes: bool = False) -> set[str]:
        """Return the codes of what stands against it."""
        return {one.code for one in self.report.reasons if notes or one.severity != "note"}

    def reason(self, code: str, arm: str | None = None) -> Reason:
        """Return the reason with this code, or say which there are."""
        found = [one for one in self.report.reasons if one.code == code and arm in {None, one.arm}]
        assert found, [(one.code, one.arm, one.text) for one in self.report.reasons]
        return found[0]


def plan(*arms: Arm, requests: int = 20, tokens: int = 12, concurrency: int = 4, **more: Any) -> Plan:
    """Return a small plan: no looking at the idle machine, no calibration, short answers."""
    values: dict[str, Any] = {
        "load": Iterations(requests=requests, concurrency=[concurrency]),
        "prompts": Prompts(tokens=48),
        "output_tokens": tokens,
        "idle_seconds": 0,
        "calibration_seconds": 0,
        "timeout_seconds": 10,
    }
    return Plan(arms=list(arms), **{**values, **more})


async def told_of(database_url: str, asked: Plan, meanwhile: Meanwhile | None = None) -> Told:
    """Ask for a run and return what became of it."""
    async with opened(database_url, command=None) as benchmarks:
        run = await benchmarks.start(asked)
        if meanwhile:
            await meanwhile(benchmarks, run.id)
        return await told(benchmarks, run.id)


async def told(benchmarks: Benchmarks, run_id: str) -> Told:
    """Wait for a run and return what became of it."""
    run = await benchmarks.wait(run_id)
    records = [record async for record in benchmarks.records(run_id)]
    markdown = (await benchmarks.report(run_id, "markdown")).content.decode() if run.report else ""
    samples = await benchmarks.samples(run_id)
    return Told(run, records, samples, markdown)
