"""What a run left behind, complete or not: the only input of its analysis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import BlockDone, Record, Sample
from ai_lab.benchmarks.schemas import Instrument


@dataclass(slots=True)
class RunData:
    """The raw results of one run. Every part may be empty: of a run that was cancelled nothing may have been measured.

    ``provenance`` has the keys ``host``, ``ai_lab``, ``prompts`` (corpus_sha256, achieved_tokens), ``seeds`` and
    ``targets`` (by the name of the arm: what the server said of itself ``before`` and ``after`` the run).
    """

    plan: Plan
    run_id: str = ""
    records: list[Record] = field(default_factory=list)
    blocks: list[BlockDone] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)  # of the busy time
    idle_before: list[Sample] = field(default_factory=list)
    idle_after: list[Sample] = field(default_factory=list)
    instrument: Instrument | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    cold_loads: dict[int, list[float]] = field(default_factory=dict)  # arm: seconds
    searched: list[tuple[float, int]] = field(default_factory=list)  # rate, level index; from the beginning of a step
    was_cancelled: bool = False
    expected_requests: int = 0  # measured ones, of all arms and levels

    def level(self, level_index: int) -> float:
        """Return the concurrency or rate of a level; a search makes up its levels as it goes."""
        for rate, index in self.searched:
            if index == level_index:
                return rate
        levels = self.plan.levels()
        return levels[min(level_index, len(levels) - 1)]
