"""Everything that a run is graded by, and the form in which checks say what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ai_lab.benchmarks.analysis.cells import CellData
from ai_lab.benchmarks.analysis.energy import PowerHistory
from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.schemas import Cell, Estimate, Reason, SearchStep

Severity = Literal["suspect", "invalid", "note"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A run, and what was computed of it.

    ``cells`` and ``results`` go together one by one; ``cached_prefills`` counts the prefill rates of a cell (arm, level
    index) that were left out as cached; ``power`` is None where the servers' energy cannot be seen from here.
    """

    data: RunData
    cells: list[CellData]
    results: list[Cell]
    steps: list[SearchStep]
    cached_prefills: Mapping[tuple[int, int], int]
    power: PowerHistory | None

    def pairs(self) -> Iterator[tuple[CellData, Cell]]:
        """Yield the raw and the computed side of each cell."""
        return zip(self.cells, self.results, strict=True)

    def is_beyond_capacity(self, cell: CellData) -> bool:
        """Return whether a search tried this rate and saw it fail, as it must above the highest one."""
        return any(step.level_index == cell.level_index and not step.holds for step in self.steps)


def median_of(result: Cell, name: str) -> float | None:
    """Return the median of a metric of a cell."""
    return result.metrics[name].median.value if name in result.metrics else None


def total_of_cell(result: Cell, name: str) -> float | None:
    """Return one of the figures of a whole cell."""
    return result.totals.get(name, Estimate()).value


def where(evidence: Evidence, result: Cell) -> str:
    """Return " at concurrency 4" where there is more than one level, else nothing."""
    if len({one.level_index for one in evidence.results}) < 2:  # noqa: PLR2004 - one level needs no name
        return ""
    unit = " requests/s" if result.level_kind == "rate" else ""
    return f" at {result.level_kind} {result.level:g}{unit}"


def finding(
    severity: Severity,
    code: str,
    text: str,
    *,
    arm: str | None = None,
    value: float | None = None,
    limit: float | None = None,
) -> Reason:
    """Return a reason; ``text`` says what was seen and what to do about it."""
    return Reason(code=code, severity=severity, text=text, arm=arm, value=value, limit=limit)
