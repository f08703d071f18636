"""How often answers helped, written in the background: nobody waits for a count."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from ai_lab.cache.repository import AnswerRepository
from ai_lab.cache.schemas import FoundKind
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import LabError

_SECONDS = 1.0
#: Answers whose hits wait at once; where there are more, only the sums are kept.
_MOST_KEYS = 10_000

logger = logging.getLogger(__name__)


class Counts:
    """Sums since the lab began, of all its servers; what a crash costs is the last second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sums: Counter[str] = Counter()
        self._hits: dict[str, tuple[int, int]] = {}
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str, count: int = 1) -> None:
        """Count something. No I/O."""
        self._sums[name] += count
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_later())

    def hit(self, key: str, kind: FoundKind) -> None:
        """Count a hit of the answer under ``key``. No I/O."""
        self.add("hits" if kind == "hit" else "semantic_hits")
        exact, alike = self._hits.get(key, (0, 0))
        if key in self._hits or len(self._hits) < _MOST_KEYS:
            self._hits[key] = (exact + (kind == "hit"), alike + (kind == "semantic"))

    async def flush(self) -> None:
        """Write what waits. Raises ``DatabaseUnavailable``; it goes on waiting then."""
        async with self._turn:
            sums, self._sums = self._sums, Counter()
            hits, self._hits = self._hits, {}
            is_written = False
            try:
                if sums:
                    async with self._database.transaction() as db:
                        repository = AnswerRepository(db)
                        if hits:
                            await repository.add_hits(hits, now())
                        await repository.add_counts(sums)
                is_written = True
            finally:
                if not is_written:
                    self._sums.update(sums)
                    for key, (exact, alike) in hits.items():
                        more = self._hits.get(key, (0, 0))
                        self._hits[key] = (exact + more[0], alike + more[1])

    async def totals(self) -> dict[str, int]:
        """Return all sums by name, those that wait included. Raises ``DatabaseUnavailable``."""
        await self.flush()
        async with self._database.reading() as db:
            return await AnswerRepository(db).counts()

    async def close(self) -> None:
        """Write what waits; what cannot be written is lost, which is logged."""
        async with self._turn:  # nothing is being written, so what is cancelled only waits
            if self._task is not None:
                self._task.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})
        try:
            await self.flush()
        except LabError as error:
            logger.warning("counts of stored answers are lost: %s", error.detail)

    async def _write_later(self) -> None:
        while self._sums:
            await asyncio.sleep(_SECONDS)
            try:
                await self.flush()
            except LabError as error:
                logger.debug("counts of stored answers wait: %s", error.detail)
