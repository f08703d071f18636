"""The operations of this process, counted and timed in slots of ten seconds by the wall clock.

Names are a contract with ``GET /performance/summary``. Operations: ``METHOD route`` for HTTP; for models
``provider/model`` (a whole call), ``provider/model first_token`` (time to it) and ``provider/model output_token`` (mean
time per token of one answer); any name for others. Counters: ``tokens_input provider/model`` and ``tokens_output …``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import RLock

from ai_lab.clock import new_id
from ai_lab.telemetry.operations.slot import (
    MOST_NAMES,
    MOST_SLOWEST,
    OTHER,
    Kind,
    OperationSlot,
    SlowOperation,
    merged,
    part_of,
)

SLOT_SECONDS = 10
_MOST_CHARACTERS = 200
#: Wall and monotonic clock may differ by this much between two looks before the wall clock counts as set.
_CLOCKS_AGREE_SECONDS = 1.0


class Operations:
    """Records what happens; finished slots wait here until they are stored. Every method may be called from any thread.

    A slot is never reopened: where the wall clock is set back, a new writer id begins, so that two slots with the same
    start stay two. A clock that is set thus moves counts, but loses and doubles none.

    Args:
        slot_seconds: length of a slot.
        most_waiting: slots that are kept for a store that does not come; beyond that the oldest are lost.
        clock: wall clock in seconds since 1970.
        monotonic: clock that is never set, in seconds.
    """

    def __init__(
        self,
        *,
        slot_seconds: int = SLOT_SECONDS,
        most_waiting: int = 360,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slot_seconds = slot_seconds
        self._most_waiting = most_waiting
        self._clock = clock
        self._monotonic = monotonic
        # Reentrant: a monitored generator that is collected as garbage may report while this thread is in here.
        self._lock = RLock()
        self._names: set[tuple[str, str]] = set()
        self._waiting: list[OperationSlot] = []
        self._covered_until, self._covered_until_monotonic = clock(), monotonic()
        self._current = OperationSlot(self._start_of(self._covered_until), new_id())
        #: Slots that could not be stored in time and are gone.
        self.lost_slots = 0

    def record(
        self, kind: Kind, name: str, seconds: float, *, failed: bool = False, trace_id: str | None = None
    ) -> None:
        """Count and time one operation that has just ended.

        Args:
            kind: the group it belongs to.
            name: 500 are told apart in the life of the process, further ones count as ``other``.
            seconds: how long it took.
            failed: whether it failed.
            trace_id: leads to its log entries if it turns out to be one of the slowest.
        """
        with self._lock:
            at = self._clock()
            slot = self._current
            if not 0 <= at - slot.start < self.slot_seconds:
                slot = self._turn(at)
            timing = slot.timings.get((kind, name))
            if timing is None:
                name = self._admitted(kind, name)
                timing = slot.timing(kind, name)
            timing.durations.record(seconds)
            if failed:
                timing.failed += 1
            if seconds >= 0 and (len(slot.slowest) < MOST_SLOWEST or seconds > slot.slowest[0].seconds):
                slot.keep_if_slow(SlowOperation(min(seconds, timing.durations.maximum), at, kind, name, trace_id or ""))

    def count(self, name: str, amount: float) -> None:
        """Add to a counter, such as ``tokens_input echo/echo``; what is no finite number is ignored."""
        if not math.isfinite(amount):
            return
        with self._lock:
            at = self._clock()
            slot = self._current
            if not 0 <= at - slot.start < self.slot_seconds:
                slot = self._turn(at)
            what, blank, of = name.partition(" ")
            slot.count_up(_cut(what) + blank + _cut(of), amount)

    def finished(self, *, everything: bool = False) -> list[OperationSlot]:
        """Return the slots that can be stored, the oldest first; they stay readable until ``forget`` is told of them.

        Every slot of time in which the process ran is there, also without operations: it says that nothing happened.

        Args:
            everything: end the running slot now, too; for an orderly stop.
        """
        with self._lock:
            at = self._bring_up_to_date()
            if everything:
                self._end_current(self._start_of(at), new_id())
            return list(self._waiting)

    def forget(self, stored: list[OperationSlot]) -> None:
        """Drop slots that are safely stored."""
        with self._lock:
            gone = {id(slot) for slot in stored}
            self._waiting = [slot for slot in self._waiting if id(slot) not in gone]

    def readable(self) -> list[OperationSlot]:
        """Return all slots not yet stored, the running one as it is at this moment."""
        with self._lock:
            self._bring_up_to_date()
            current = self._current
            return [*self._waiting, merged([current], current.start, current.writer_id)]

    def _start_of(self, at: float) -> int:
        return int(at // self.slot_seconds) * self.slot_seconds

    def _turn(self, at: float) -> OperationSlot:
        """Begin the slot of this moment; of an earlier one only under a new writer."""
        writer_id = self._current.writer_id if at >= self._current.start else new_id()
        return self._end_current(self._start_of(at), writer_id)

    def _end_current(self, next_start: int, writer_id: str) -> OperationSlot:
        self._waiting.append(self._current)
        self._drop_surplus()
        self._current = OperationSlot(next_start, writer_id)
        return self._current

    def _bring_up_to_date(self) -> float:
        """Turn to the slot of now, and note in every slot since the last call for how long of it the process ran.

        Where the clocks disagree, the machine slept or its clock was set: that stretch is not covered.
        """
        at, monotonic = self._clock(), self._monotonic()
        if not 0 <= at - self._current.start < self.slot_seconds:
            self._turn(at)
        since, passed = self._covered_until, monotonic - self._covered_until_monotonic
        self._covered_until, self._covered_until_monotonic = at, monotonic
        if at > since and abs(at - since - passed) <= _CLOCKS_AGREE_SECONDS:
            since = max(since, at - self._most_waiting * self.slot_seconds)
            self._cover(since, at)
        return at

    def _cover(self, since: float, until: float) -> None:
        writer_id = self._current.writer_id
        there = {slot.start: slot for slot in (*self._waiting, self._current) if slot.writer_id == writer_id}
        for start in range(self._start_of(since), self._start_of(until) + 1, self.slot_seconds):
            if start not in there:
                there[start] = OperationSlot(start, writer_id)
                self._waiting.append(there[start])
            covered = min(until, start + self.slot_seconds) - max(since, start)
            there[start].covered_seconds = round(there[start].covered_seconds + covered, 3)
        self._drop_surplus()

    def _drop_surplus(self) -> None:
        surplus = len(self._waiting) - self._most_waiting
        if surplus > 0:
            self._waiting.sort(key=lambda slot: slot.start)
            self.lost_slots += sum(1 for slot in self._waiting[:surplus] if slot.timings)
            del self._waiting[:surplus]

    def _admitted(self, kind: str, name: str) -> str:
        name = _cut(name)
        if (kind, name) not in self._names:
            if len(self._names) >= MOST_NAMES:
                return OTHER + part_of(name)
            self._names.add((kind, name))
        return name


def _cut(name: str) -> str:
    """Return a name that every output can show: not endless, no half characters (lone surrogates); it stays a part."""
    part = part_of(name)
    return name.removesuffix(part)[:_MOST_CHARACTERS].encode("utf-8", "replace").decode() + part
