"""Where answers lie: in this process's memory, and behind it in the store that all servers share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from ai_lab.cache.memory import Kept, Memory
from ai_lab.cache.store import AnswerStore, Entry
from ai_lab.database.batches import Batch
from ai_lab.errors import LabError

_MEMORY_BYTES = 4_000_000
#: Answers that wait to be written; more are not stored.
_MOST_WAITING_BYTES = 32_000_000
#: No request waits longer than this for the store.
_PATIENCE_SECONDS = 1.0
#: After the store has failed, it is left alone for so long.
_ALONE_SECONDS = 5.0
_PURGE_SECONDS = 60.0
_WARN_SECONDS = 60.0

#: Returns which of these ids, of messages or of conversations, are still there.
Existing = Callable[[Collection[str]], Awaitable[set[str]]]

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Tiers:
    """Both tiers as one. For a request, a store that cannot be used is an empty one.

    Args:
        store: shared by all servers.
        on_written: told of answers that lie in the store now.
        existing: see ``Existing``; None: all of them.
        stale_seconds: for as long answers may still be given from memory that another server has deleted.

    Attributes:
        memory: the first tier.
        failures: how often the store could not be used.
    """

    def __init__(
        self,
        store: AnswerStore,
        on_written: Callable[[Sequence[Entry]], Awaitable[None]],
        *,
        stale_seconds: float,
        existing: Existing | None = None,
    ) -> None:
        self.store = store
        self.memory = Memory(_MEMORY_BYTES)
        self.failures = 0
        self._on_written = on_written
        self._existing = existing
        self._stale_seconds = stale_seconds
        self._writing: Batch[Entry] = Batch(self._write)
        self._waiting_bytes = 0
        self._generation: int | None = None
        self._generation_read = self._alone_until = self._warn_after = float("-inf")
        self._purging = asyncio.Lock()
        self._upkeep = asyncio.create_task(self._keep_up())

    def recent(self, key: str) -> Kept | None:
        """Return an answer from memory. No I/O."""
        return self.memory.get(key, time.time())

    async def get(self, key: str, *, is_local_only: bool = False) -> Kept | None:
        """Return an answer, None where it is not stored or the store does not say in time."""
        kept = self.recent(key)
        # Its first state is learned before anything is kept here, so that it is a change and no beginning that counts.
        if (kept is not None or self._generation is None) and not await self._is_current():
            kept = None
        if kept is not None or (is_local_only and self.store.name == "redis"):  # even the digest of it stays here
            return kept
        memory = self.memory  # whose place another takes where answers are deleted meanwhile
        kept = await self._asked(lambda: self.store.get(key))
        if kept is not None:
            memory.put(key, kept)
        return kept

    def put(self, entry: Entry, kept: Kept) -> None:
        """Keep an answer; it is written in the background."""
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            return
        self.memory.put(entry.cache_key.key, kept)
        self._waiting_bytes += entry.size_bytes
        self._writing.add(entry)

    async def evict(self, key: str) -> bool:
        """Delete one answer and say whether there was one. Raises ``DatabaseUnavailable``."""
        await self._writing.flush()
        was_here = self.recent(key) is not None
        self.memory.remove(key)
        return await self.store.evict(key) or was_here

    async def forget(self, session_id: str) -> None:
        """Delete the answers that were made for a conversation; those that wait to be written go after they are.

        Raises:
            DatabaseUnavailable: the store is the database. A Redis that cannot be used lets them go in their time.
        """
        try:
            if self.store.name == "redis":
                await self._asked(lambda: self.store.forget(session_id))
            else:
                await self.store.forget(session_id)
        finally:
            self._forget_memory()  # it does not know whose they are, and has the others again soon

    async def clear(self) -> int:
        """Delete all answers and return how many the store had. Raises ``DatabaseUnavailable``."""
        await self._writing.flush()
        try:
            deleted = await self.store.clear()
            # What is kept from now on is new: it must not go because of this deletion.
            self._generation, self._generation_read = await self._asked(self.store.generation), time.monotonic()
        finally:
            self._forget_memory()
        return deleted

    async def flush(self) -> None:
        """Write what waits, as far as the store can be reached."""
        await self._writing.flush()

    async def end_writing(self) -> None:
        """Write what waits; nothing is stored any more."""
        async with self._purging:  # nothing is being deleted, so what is cancelled only waits
            self._upkeep.cancel()
        await asyncio.wait({self._upkeep})
        await self._writing.close()

    async def _is_current(self) -> bool:
        """Say whether memory holds nothing that another server has deleted more than a moment ago."""
        if time.monotonic() - self._generation_read < self._stale_seconds:
            return True
        generation = await self._asked(self.store.generation)
        if generation is None:  # nobody can have deleted anything in a store that cannot be reached
            return True
        self._generation_read = time.monotonic()
        if generation == self._generation:
            return True
        self._generation = generation
        self._forget_memory()
        return False

    def _forget_memory(self) -> None:
        self.memory = Memory(_MEMORY_BYTES)

    async def _asked(self, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """Return what the store says, None while it cannot be used."""
        if time.monotonic() < self._alone_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await ask()
        except (LabError, TimeoutError) as error:
            self._failed(error)
            return None

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Store what waits; an answer that cannot be stored is let go, for it can be made again."""
        try:
            try:
                await self.store.put(entries)
            finally:  # where the store fails, memory has them all the same
                staying = await self._staying(entries)
            await self._on_written(staying)
        except (LabError, TimeoutError) as error:
            self._failed(error)
        finally:  # a batch that fails as a whole is tried again one by one, and counted twice
            self._waiting_bytes = max(0, self._waiting_bytes - sum(entry.size_bytes for entry in entries))

    async def _staying(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Delete answers whose conversations are gone, and return the others.

        Called when they are written, so that whoever deletes a conversation after this look finds its answers there.
        """
        made_for = {entry.message_id or entry.session_id or "" for entry in entries} - {""}
        if self._existing is None or not made_for:
            return entries
        gone = made_for - await self._existing(made_for)
        orphans = {entry.cache_key.key for entry in entries if (entry.message_id or entry.session_id) in gone}
        for key in orphans:
            self.memory.remove(key)
        for key in orphans:
            await self.store.evict(key)
        return [entry for entry in entries if entry.cache_key.key not in orphans]

    def _failed(self, error: Exception) -> None:
        at = time.monotonic()
        self.failures += 1
        self._alone_until = at + _ALONE_SECONDS
        if at >= self._warn_after:
            self._warn_after = at + _WARN_SECONDS
            logger.warning(
                "the store of answers cannot be used (%s, %d times so far): models are asked anew meanwhile, and "
                "answers of deleted conversations go when their time is over",
                type(error).__name__,
                self.failures,
            )

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_PURGE_SECONDS)
            try:
                async with self._purging:
                    await self.store.purge()
            except LabError as error:
                logger.debug("old answers are still stored: %s", error.detail)
