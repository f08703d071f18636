"""Keeps circuit breakers in the database: read at first use, written in the background, shared on Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from ai_lab.database import Database
from ai_lab.errors import LabError
from ai_lab.gateway.breaker_record import LONGEST_ASKED_SECONDS, Key, Record
from ai_lab.gateway.breaker_repository import BreakerRepository, breaker_rows

Change = Callable[[BreakerRepository], Awaitable[object]]

#: What other servers did is seen after this time, and asked for no more often.
LOOK_SECONDS = 0.5
#: After so long without a look the next request waits for one; until then nobody does.
_STALE_SECONDS = 2.0
#: No request waits longer than this for the database.
_PATIENCE_SECONDS = 0.25
_WARN_SECONDS = 60.0
_Failure = (LabError, OSError, TimeoutError)

logger = logging.getLogger(__name__)


class BreakerStore:
    """Reads and changes of the rows; one that fails is logged, and this process goes on by what it knows itself.

    Attributes:
        is_shared: whether other servers may write the same rows, which SQLite has none of.
    """

    def __init__(self, database: Database) -> None:
        self.is_shared = not database.is_sqlite
        self._database = database
        self._waiting: deque[tuple[Key, Change]] = deque()
        self._pending: Counter[Key] = Counter()
        self._writing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[tuple[int, list[Record] | None]] | None = None
        self._is_loaded = False
        self._read_at = -math.inf
        self._changes = 0
        self._offset_seconds = time.time() - time.monotonic()
        self._warn_after = 0.0

    def now(self) -> float:
        """Return the database's clock as this process knows it, in Unix seconds."""
        return time.monotonic() + self._offset_seconds

    def is_due(self) -> bool:
        """Return whether what others did is not known any more."""
        return not self._is_loaded or (self.is_shared and time.monotonic() - self._read_at > LOOK_SECONDS)

    def is_stale(self) -> bool:
        """Return whether that is so for long, or from the start."""
        return not self._is_loaded or time.monotonic() - self._read_at > _STALE_SECONDS

    def is_pending(self, key: Key) -> bool:
        """Return whether a change of this model is not written yet, so that its row is out of date."""
        return self._pending[key] > 0

    async def read(self) -> list[Record] | None:
        """Return all records, or None where they cannot be had in time, or changed here meanwhile.

        Nothing is read where no other server could have written since the first time.
        """
        if self._is_loaded and not self.is_shared:
            return None
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                changes, records = await asyncio.shield(self._reading)
                return records if changes == self._changes else None
        return None

    def submit(self, key: Key, change: Change) -> None:
        """Change a row in the background; changes are made in the order in which they came."""
        self._changes += 1
        self._pending[key] += 1
        self._waiting.append((key, change))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def attempt(self, change: Callable[[BreakerRepository], Awaitable[bool]]) -> bool | None:
        """Make a change at once and return what came of it, or None where the database cannot say in time."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), breaker_rows(self._database) as rows:
                return await change(rows)
        except _Failure as error:
            self._failed(error)
            return None
        finally:
            self._changes += 1

    async def settled(self, key: Key) -> None:
        """Wait until the changes of a model are written, but not for long."""
        if self.is_pending(key):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self.flush()

    def forget_read(self) -> None:
        """Have the rows read again before the next request."""
        self._read_at = -math.inf

    async def flush(self) -> None:
        """Wait until everything that was submitted is written."""
        while self._writing and not self._writing.done():
            await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Write what is left and end."""
        await self.flush()
        if self._reading:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self) -> tuple[int, list[Record] | None]:
        """Return the records, and the number of changes that had been made here when they were read."""
        changes = self._changes
        self._read_at = time.monotonic()  # one that fails is not repeated at once
        try:
            async with breaker_rows(self._database, writes=False) as rows:
                before = time.monotonic()
                clock = await rows.clock_seconds()
                self._offset_seconds = clock - (before + time.monotonic()) / 2
                records = await rows.all()
        except _Failure as error:
            self._failed(error)
            return changes, None
        finally:
            self._is_loaded = True
        now = self.now()
        for record in records:  # a clock that was set back must not keep anybody out
            record.retry_at = record.retry_at and min(record.retry_at, now + LONGEST_ASKED_SECONDS)
        return changes, records

    async def _write(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            try:
                async with breaker_rows(self._database) as rows:
                    for _, change in batch:
                        await change(rows)
                    await rows.delete_old()
            except _Failure as error:
                self._failed(error)
            for key, _ in batch:
                self._waiting.popleft()
                self._pending[key] -= 1
            self._pending += Counter()  # drops the zeros
            self._changes += 1

    def _failed(self, error: BaseException) -> None:
        now = time.monotonic()
        if now >= self._warn_after:
            self._warn_after = now + _WARN_SECONDS
            logger.warning(
                "circuit breakers cannot be kept in the database (%s): this server goes on by what it knows itself",
                type(error).__name__,
            )
