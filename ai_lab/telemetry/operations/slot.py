"""What happened within one slot of time: durations and failures by operation, counters, the slowest operations."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from ai_lab.telemetry.operations.histogram import DamagedCounts, DurationHistogram, pack, unpack

Kind = Literal["http", "database", "provider", "function"]

#: Distinct operations, and distinct counters, that are told apart; what comes after counts as ``OTHER``.
MOST_NAMES = 500
MOST_SLOWEST = 10
#: Timings that belong to the call of a model but are no calls: ``provider/model first_token``.
PARTS = (" first_token", " output_token")
OTHER = "other"


def part_of(name: str) -> str:
    """Return the one of ``PARTS`` that a name ends in; empty for whole operations."""
    return next((part for part in PARTS if name.endswith(part)), "")


class SlowOperation(NamedTuple):
    """One of the slowest operations; ``at`` is when it ended, in seconds since 1970."""

    seconds: float
    at: float
    kind: str
    name: str
    trace_id: str = ""


class Timing:
    """Durations and failures of one operation. A failure is timed too."""

    __slots__ = ("durations", "failed")

    def __init__(self, durations: DurationHistogram | None = None, failed: int = 0) -> None:
        self.durations = durations or DurationHistogram()
        self.failed = failed

    def merge(self, other: Timing) -> None:
        """Add all that ``other`` holds."""
        self.durations.merge(other.durations)
        self.failed += other.failed


class OperationSlot:
    """The operations of one process that ended within one slot of time. Not safe for several threads at once.

    Args:
        start: of the slot, in seconds since 1970.
        writer_id: who wrote it. The same writer never has two slots of the same start and length.
    """

    __slots__ = ("counters", "covered_seconds", "slowest", "start", "timings", "writer_id")

    def __init__(self, start: int = 0, writer_id: str = "") -> None:
        self.start = start
        self.writer_id = writer_id
        self.timings: dict[tuple[str, str], Timing] = {}
        self.counters: dict[str, float] = {}
        self.slowest: list[SlowOperation] = []  # a heap, the least slow one first
        #: For how long of the slot the process ran.
        self.covered_seconds = 0.0

    @property
    def count(self) -> int:
        """How many operations it holds."""
        return sum(timing.durations.count for timing in self.timings.values())

    def timing(self, kind: str, name: str) -> Timing:
        """Return the timing of an operation, a new one if need be."""
        key = (kind, name)
        if key not in self.timings and len(self.timings) >= MOST_NAMES:
            key = (kind, OTHER + part_of(name))
        return self.timings.setdefault(key, Timing())

    def count_up(self, name: str, amount: float) -> None:
        """Add to a counter."""
        if name not in self.counters and len(self.counters) >= MOST_NAMES:
            what, blank, _ = name.partition(" ")
            name = what + blank + OTHER if blank else OTHER
        self.counters[name] = self.counters.get(name, 0) + amount

    def keep_if_slow(self, operation: SlowOperation) -> None:
        """Keep an operation if it is among the slowest; what is only a part of one is not."""
        if operation.name.endswith(PARTS):
            return
        if len(self.slowest) < MOST_SLOWEST:
            heapq.heappush(self.slowest, operation)
        elif operation > self.slowest[0]:
            heapq.heapreplace(self.slowest, operation)

    def merge(self, other: OperationSlot) -> None:
        """Add all that ``other`` holds."""
        for key, timing in other.timings.items():
            mine = self.timings.get(key)
            (mine or self.timing(*key)).merge(timing)
        for name, amount in other.counters.items():
            self.count_up(name, amount)
        for operation in other.slowest:
            self.keep_if_slow(operation)
        self.covered_seconds += other.covered_seconds

    def encode(self) -> bytes:
        """Return a compact form to store, without start and writer."""
        names = [[*key, timing.failed] for key, timing in self.timings.items()]
        about = [names, self.counters, sorted(self.slowest), self.covered_seconds]
        return pack(about, [timing.durations for timing in self.timings.values()])

    @classmethod
    def decode(cls, stored: bytes, start: int = 0, writer_id: str = "") -> OperationSlot:
        """Return what ``encode`` was called on.

        Raises:
            DamagedCounts: these are not its bytes.
        """
        made = cls(start, writer_id)
        about, histograms = unpack(stored)
        try:
            names, counters, slowest, covered_seconds = about
            for (kind, name, failed), durations in zip(names, histograms, strict=True):
                made.timings[kind, name] = Timing(durations, int(failed))
            made.counters = {name: _finite(amount) for name, amount in counters.items()}
            made.slowest = [
                SlowOperation(_finite(seconds), _finite(at), str(kind), str(name), str(trace_id))
                for seconds, at, kind, name, trace_id in slowest
            ]
            made.covered_seconds = _finite(covered_seconds)
        except (TypeError, ValueError, AttributeError) as error:
            raise DamagedCounts("Stored counts are damaged: they have not the shape of a slot.") from error
        return made


def merged(slots: Iterable[OperationSlot], start: int = 0, writer_id: str = "") -> OperationSlot:
    """Return all slots as one."""
    whole = OperationSlot(start, writer_id)
    for slot in slots:
        whole.merge(slot)
    return whole


def _finite(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("not a finite number")
    return value
