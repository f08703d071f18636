"""A window of time and all operations that ended in it, put together from slots of any length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ai_lab.telemetry.operations.slot import OperationSlot


@dataclass(frozen=True)
class OperationWindow:
    """All operations that ended from ``start`` to ``end``, in seconds since 1970.

    Attributes:
        counts: of the whole window.
        covered_seconds: in how much of it a process ran and recorded. Of several processes the times are added, up to
            the length of a slot: right for one that was started again, the most it can be for several at once.
    """

    start: float
    end: float
    counts: OperationSlot
    covered_seconds: float

    @property
    def coverage_percent(self) -> float:
        """The covered part of the window."""
        return round(100 * self.covered_seconds / (self.end - self.start), 2) if self.end > self.start else 0.0


def live_window(slots: Iterable[OperationSlot], seconds: int, start: float, end: float) -> OperationWindow:
    """Return the window over slots in memory alone, each ``seconds`` long."""
    first = int(start // seconds) * seconds
    return put_together(((seconds, slot) for slot in slots if first <= slot.start < end), first, end)


def put_together(slots: Iterable[tuple[int, OperationSlot]], start: float, end: float) -> OperationWindow:
    """Return the window over slots, each given with its length in seconds; each is needed for a moment only."""
    covered: dict[tuple[int, int], float] = defaultdict(float)
    whole = OperationSlot()
    for tier, slot in slots:
        covered[tier, slot.start] = min(tier, covered[tier, slot.start] + slot.covered_seconds)
        whole.merge(slot)
    return OperationWindow(start, end, whole, min(sum(covered.values()), end - start))
