"""The records of a run sorted into cells (one arm at one level), and what in them is independent of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.intervals import FEWEST_CLUSTERS
from ai_lab.benchmarks.analysis.metrics import COMPLETED, is_open
from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.records import BlockDone, Record

Ints = NDArray[np.int64]
_MOST_BATCHES = 20
_FEWEST_PER_BATCH = 5
_MOST_GROUPS = 400


@dataclass(slots=True)
class CellData:
    """The measured records of one arm at one level, in the order of the schedule, and their complete blocks."""

    arm: int
    level_index: int
    level: float
    records: list[Record]
    blocks: list[BlockDone]
    is_open: bool  # requests come at their own times

    @property
    def is_overlapping(self) -> bool:
        """Return whether several requests run at a time, so that they depend on each other."""
        return self.is_open or self.level > 1

    @property
    def completed(self) -> list[Record]:
        """Return the records of whole answers, short ones among them."""
        return [record for record in self.records if record.status in COMPLETED]

    @property
    def asked(self) -> list[Record]:
        """Return the records that say something about the server: all but those that we cancelled."""
        return [record for record in self.records if record.status != "cancelled"]

    def by_block(self) -> dict[int, list[Record]]:
        """Return the records of each block, in the order of the blocks."""
        blocks: dict[int, list[Record]] = {}
        for record in self.records:
            blocks.setdefault(record.block, []).append(record)
        return blocks


def cells_of(data: RunData) -> list[CellData]:
    """Return the cells that have measured records, by level and then by arm."""
    groups: dict[tuple[int, int], list[Record]] = {}
    for record in data.records:
        if record.phase == "measured":
            groups.setdefault((record.level, record.arm), []).append(record)
    return [
        CellData(
            arm=arm,
            level_index=level,
            level=data.level(level),
            records=sorted(records, key=lambda record: record.index),
            blocks=sorted((one for one in data.blocks if (one.level, one.arm) == (level, arm)), key=_block_number),
            is_open=is_open(data.plan),
        )
        for (level, arm), records in sorted(groups.items())
    ]


def _block_number(block: BlockDone) -> int:
    return block.block


def clusters_of(cell: CellData, records: list[Record]) -> Ints | None:
    """Return which independent part of the cell each record is of, shape (n,); None: each is independent.

    One request at a time depends on no other. Requests that overlap share the server: what is independent are then
    the blocks, where there are at least 5, else batches of neighbours in time (the method of batch means): 5 to 20 of
    them, of 5 requests or more and whole rounds where there are enough for 5 such batches.
    """
    if not cell.is_overlapping:
        return None
    numbers = {block: number for number, block in enumerate(cell.by_block())}
    if len(numbers) >= FEWEST_CLUSTERS:
        return np.array([numbers[record.block] for record in records], dtype=np.int64)
    n = len(records)
    batches = max(FEWEST_CLUSTERS, n // _batch_size(cell, n))
    return np.arange(n) * batches // max(n, batches)


def _batch_size(cell: CellData, n: int) -> int:
    """Return how many of ``n`` requests make a batch: whole rounds of those that run at a time, at most 20 batches.

    A server that answers in step ends as many requests at once; parts of a round would seem fast or slow by turns.
    """
    together = 1 if cell.is_open else max(1, int(cell.level))
    return ceil(max(_FEWEST_PER_BATCH, n / _MOST_BATCHES) / together) * together


def neighbours(count: int) -> Ints:
    """Return which of at most 400 groups of neighbours in time each of ``count`` clusters is of, shape (count,).

    A bootstrap of 10,000 single requests takes seconds; of groups it gives the same interval in a tenth of that.
    """
    return np.arange(count) * min(count, _MOST_GROUPS) // max(count, 1)


def started_ns(record: Record) -> int | None:
    """Return when the request's time began: when it was to be sent, or else its first stamp."""
    for stamp in (record.intended_ns, record.dispatched_ns, record.sent_ns, record.end_ns):
        if stamp is not None:
            return stamp
    return None


def ended_ns(record: Record) -> int | None:
    """Return the last moment that anything was seen of the request."""
    stamps = (record.end_ns, record.last_token_ns, record.sent_ns, record.dispatched_ns, record.intended_ns)
    return max((stamp for stamp in stamps if stamp is not None), default=None)


def span_ns(records: list[Record]) -> tuple[int, int] | None:
    """Return from when to when these requests ran, None if none began."""
    starts = [stamp for stamp in map(started_ns, records) if stamp is not None]
    ends = [stamp for stamp in map(ended_ns, records) if stamp is not None]
    return (min(starts), max(ends)) if starts else None


def spans_of(cell: CellData) -> list[tuple[int, int]]:
    """Return from when to when each block ran, by its own records; blocks of other cells lie in between."""
    return [span for span in map(span_ns, cell.by_block().values()) if span is not None]


def seconds_of(cell: CellData) -> float:
    """Return how long the cell ran, without the time of other cells in between."""
    return sum(end - start for start, end in spans_of(cell)) / 1e9


def turns_of(cell: CellData) -> tuple[list[list[Record]], list[float]]:
    """Return the parts of a cell that its rates are estimated from, and the seconds of each, together its time.

    Overlapping requests: the blocks, where there are at least 5, else parts of them, of requests in the order in which
    they ended. One at a time: each request, from its beginning to that of the next in its block.
    """
    blocks = list(cell.by_block().values())
    if not cell.is_overlapping:
        cut = [_cut(records, started_ns, 1, is_end=False) for records in blocks]
    elif len(blocks) >= FEWEST_CLUSTERS:
        cut = [_cut(records, ended_ns, len(records), is_end=True) for records in blocks]
    else:
        size = _batch_size(cell, len(cell.records))
        cut = [_cut(records, ended_ns, size, is_end=True) for records in blocks]
    turns = [turn for block in cut for turn in block]
    return [records for records, _ in turns], [seconds for _, seconds in turns]


def _cut(
    records: list[Record], stamp_of: Callable[[Record], int | None], size: int, *, is_end: bool
) -> list[tuple[list[Record], float]]:
    """Cut a block into parts of ``size`` neighbours by a stamp, which ends a part or begins the next.

    The last part has what does not fill another one too.
    """
    span = span_ns(records)
    known = [(stamp, number) for number, stamp in enumerate(map(stamp_of, records)) if stamp is not None]
    if span is None or not known:
        return []
    known.sort()
    ends = [*range(size, len(known) - size + 1, size), len(known)]
    turns: list[tuple[list[Record], float]] = []
    members, since = [], span[0]
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        members += [records[number] for _, number in known[first:end]]
        until = span[1] if end == len(known) else known[end - 1 if is_end else end][0]
        if until > since and members:
            turns.append((members, (until - since) / 1e9))
            members, since = [], until
    if members and turns:
        turns[-1][0].extend(members)
    return turns


def sent_once(data: RunData) -> set[str]:
    """Return the hashes of prompts that no server was sent twice, warm-up counted: no prefix cache can know them."""
    servers = [arm.url or (arm.model or "").partition("/")[0] for arm in data.plan.arms]
    times = Counter((servers[record.arm], record.prompt_sha256) for record in data.records)
    repeated = {prompt for (_, prompt), often in times.items() if often > 1}
    return {prompt for _, prompt in times} - repeated
