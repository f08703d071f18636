"""Keeps the slots of ``Operations`` in the database: writes them, sums them up, removes old ones, reads a window."""

from __future__ import annotations

import asyncio
import itertools
import logging

from ai_lab.database import Database
from ai_lab.telemetry.operations.histogram import DamagedCounts
from ai_lab.telemetry.operations.repository import TIERS, Key, OperationRepository, Row
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.slot import OperationSlot, merged
from ai_lab.telemetry.operations.window import OperationWindow, put_together

_SHORT, _DAY = TIERS[0], TIERS[-1]
#: A slot of a busy server takes kilobytes, whatever its length: fine ones are kept for as long as a look needs them.
KEPT_SECONDS = {10: 2 * 3600, 300: 48 * 3600, 3600: 7 * 86400, 86400: 730 * 86400}
_LONGER = dict(itertools.pairwise(TIERS))
#: Sums wait this long for slots still to be flushed; what comes later is added to them.
_LATE_SECONDS = 60
_AT_ONCE = 8

logger = logging.getLogger(__name__)


class OperationStore:
    """Slots in the database and, not yet stored, in ``operations``. A kill loses what was not flushed, no more.

    Args:
        operations: whose slots are stored.
        database: where.
    """

    def __init__(self, operations: Operations, database: Database) -> None:
        self._operations = operations
        self._database = database
        # While slots move from memory to the database, a reader would find them in both or in neither.
        self._moving = asyncio.Lock()
        self._lost_slots = 0

    async def flush(self, *, everything: bool = False) -> None:
        """Store all finished slots in one transaction; after a failure they are kept for the next flush.

        Storing one twice changes nothing, so a commit whose answer was lost does no harm.

        Args:
            everything: end and store the running slot too; before an orderly end.

        Raises:
            DatabaseUnavailable: nothing was stored, nothing is lost.
        """
        async with self._moving:
            slots = self._operations.finished(everything=everything)
            if self._operations.lost_slots > self._lost_slots:
                lost, self._lost_slots = self._operations.lost_slots - self._lost_slots, self._operations.lost_slots
                logger.warning("the database was away too long: operations of %d slots are lost", lost)
            if not slots:
                return
            rows = await asyncio.to_thread(lambda: [_row(_SHORT, slot) for slot in slots])
            async with self._database.transaction() as db:
                repository = OperationRepository(db)
                await repository.write_alone()
                new = await repository.add(rows)
                late = [slot for slot in slots if (slot.writer_id, slot.start) in new]
                await _add_to_sums(repository, late)
            self._operations.forget(slots)

    async def roll_up(self, now: float) -> None:
        """Write the sums of all finished spans that have none yet: of five minutes, hours and days, of every writer.

        A sum is written once, from all that lies below it, and only grows afterwards, by slots that come late.
        """
        until = int(now) - _LATE_SECONDS
        async with self._database.reading() as db:
            repository = OperationRepository(db)
            is_done = not any([await repository.unsummed(*pair, until) for pair in itertools.pairwise(TIERS)])
        while not is_done:
            async with self._moving, self._database.transaction() as db:
                repository = OperationRepository(db)
                await repository.write_alone()
                is_done = await _sum_some_up(repository, until)

    async def purge(self, now: float) -> None:
        """Remove what is older than it is kept, and summed up where a longer row is to follow."""
        for tier in TIERS:
            async with self._database.reading() as db:
                begin = await OperationRepository(db).oldest(tier)
            before = _kept_since(tier, now)
            while begin is not None and begin < before:  # a day at a time: other writers wait for no more than that
                until = min(before, begin + _DAY)
                async with self._database.transaction() as db:
                    await OperationRepository(db).remove(tier, begin, until, summed_by=_LONGER.get(tier))
                begin = until

    async def window(self, start: float, end: float) -> OperationWindow:
        """Return all that happened from ``start`` to ``end`` (seconds since 1970), stored or not.

        The window begins at the slot that ``start`` lies in, of the shortest ones kept of that time: ten seconds for
        two hours, five minutes for two days, an hour for a week, then a day (UTC). At its end it is always exact.
        """
        step = next((tier for tier in TIERS if start >= _kept_since(tier, end)), _DAY)
        first = int(start // step) * step
        async with self._moving:
            live = self._operations.readable()
            async with self._database.reading() as db:
                repository = OperationRepository(db)
                # A commit whose answer was lost, or that was called off, leaves slots in both places.
                stored = await repository.stored({(slot.writer_id, slot.start) for slot in live})
                rows = await repository.covering(first, end)
        live = [slot for slot in live if (slot.writer_id, slot.start) not in stored]
        return await asyncio.to_thread(_window, rows, live, first, end)


def _window(rows: list[Row], live: list[OperationSlot], start: int, end: float) -> OperationWindow:
    stored = ((row["tier"], slot) for row in rows if (slot := _decoded(row)))
    running = ((_SHORT, slot) for slot in live if start <= slot.start < end)
    return put_together(itertools.chain(stored, running), start, end)


async def _add_to_sums(repository: OperationRepository, late: list[OperationSlot]) -> None:
    """Add slots to the sums that were written without them."""
    keys = {(slot.writer_id, slot.start) for slot in late}
    for row in await repository.sums_over(keys) if keys else []:
        start, writer_id, tier = row["start"], row["writer_id"], row["tier"]
        if before := _decoded(row):
            inside = [slot for slot in late if slot.writer_id == writer_id and 0 <= slot.start - start < tier]
            await repository.replace(_row(tier, merged([before, *inside], start, writer_id)))


async def _sum_some_up(repository: OperationRepository, until: int) -> bool:
    """Write the sums of some spans and return whether those were all.

    Longer ones only once all shorter ones are there, in the same transaction: they are made of them, and a slot that
    comes in between would be missing.
    """
    for tier, longer in itertools.pairwise(TIERS):
        missing = await repository.unsummed(tier, longer, until)
        if spans := missing[:_AT_ONCE]:
            rows = await repository.slots_of(tier, longer, spans)
            await repository.add(await asyncio.to_thread(_sums, rows, longer, spans))
        if len(missing) > _AT_ONCE:
            return False
    return True


def _sums(rows: list[Row], longer: int, spans: list[Key]) -> list[Row]:
    """Return the row of each span; one whose slots are all damaged is empty, so that nobody tries again."""
    whole = {(writer_id, start): OperationSlot(start, writer_id) for writer_id, start in spans}
    for row in rows:
        if slot := _decoded(row):
            whole[slot.writer_id, slot.start - slot.start % longer].merge(slot)
    return [_row(longer, slot) for slot in whole.values()]


def _row(tier: int, slot: OperationSlot) -> Row:
    return {"tier": tier, "start": slot.start, "writer_id": slot.writer_id, "counts": slot.encode()}


def _decoded(row: Row) -> OperationSlot | None:
    """Return a row's slot; one that is damaged is left out and said so, for the others are sound."""
    try:
        return OperationSlot.decode(row["counts"], row["start"], row["writer_id"])
    except DamagedCounts as error:
        logger.warning("operations of %d s from %d are left out: %s", row["tier"], row["start"], error)
        return None


def _kept_since(tier: int, now: float) -> int:
    """Return the first moment of which a tier still has everything; what goes at once is a slot of the next one."""
    step = _LONGER.get(tier, tier)
    return int((now - KEPT_SECONDS[tier]) // step) * step
