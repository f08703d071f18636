"""An import that changes nothing: it decides as the real one does and remembers on the side what would be there."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing

from ai_lab.database import Database
from ai_lab.importer.measurements import Measurements, MeasurementsOutcome, count_new, survey_measurements
from ai_lab.importer.placement import DatabaseShelf, Matches, Place
from ai_lab.importer.records import Holds, Record, Source
from ai_lab.importer.repository import ImportRepository
from ai_lab.importer.service import Outcome, decide
from ai_lab.importer.survey import survey


class Rehearsal:
    """Decides about sources; ``database`` is None where there is none yet."""

    def __init__(self, database: Database | None) -> None:
        self._database = database
        self._notes = sqlite3.connect("")  # a temporary file of SQLite's own, which it deletes
        self._notes.execute(
            "CREATE TABLE said (holds, session_id, number, digest, PRIMARY KEY (holds, session_id, number))"
        )

    def close(self) -> None:
        """Forget the notes."""
        self._notes.close()

    async def bring_in(self, source: Source, kind: str) -> Outcome:
        """Decide about one source. Raises ``SourceDamaged``."""
        found = survey(source)
        async with self._repository() as repository:
            outcome, place = await decide(repository, _Notes(self._notes, repository), source, found)
        if outcome.added and place:
            self._note(source, place)
        return outcome

    async def bring_in_measurements(self, source: Measurements) -> MeasurementsOutcome:
        """Count the measurements that are new. Raises ``SourceDamaged``."""
        found = survey_measurements(source)
        async with self._repository() as repository:
            return MeasurementsOutcome(await count_new(repository, found) if repository else found.count, found)

    @asynccontextmanager
    async def _repository(self) -> AsyncIterator[ImportRepository | None]:
        if self._database is None:
            yield None
            return
        async with self._database.reading() as db:
            yield ImportRepository(db)

    def _note(self, source: Source, place: Place) -> None:
        with closing(source.read()) as records, self._notes:  # the connection ends its transaction with the block
            self._notes.executemany(
                "INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?)",
                ((source.holds, place.session_id, number, record.digest()) for number, record in enumerate(records, 1)),
            )


def _has_digest(digest: bytes, record: Record) -> bool:
    return record.digest() == digest


class _Notes:
    """What would be there: the notes first, then the database."""

    def __init__(self, notes: sqlite3.Connection, repository: ImportRepository | None) -> None:
        self._notes = notes
        self._shelf = DatabaseShelf(repository) if repository else None

    async def is_taken(self, holds: Holds, session_id: str) -> bool:
        """Return whether the name is or would be in use."""
        if self._is_noted(holds, session_id):
            return True
        return self._shelf is not None and await self._shelf.is_taken(holds, session_id)

    async def held(self, holds: Holds, session_id: str) -> AsyncGenerator[Matches, None]:
        """Yield what would be there."""
        if self._shelf and not self._is_noted(holds, session_id):
            async for matches in self._shelf.held(holds, session_id):
                yield matches
            return
        chosen = "SELECT digest FROM said WHERE holds = ? AND session_id = ? ORDER BY number"
        for (digest,) in self._notes.execute(chosen, (holds, session_id)):
            yield functools.partial(_has_digest, digest)

    def _is_noted(self, holds: Holds, session_id: str) -> bool:
        chosen = "SELECT 1 FROM said WHERE holds = ? AND session_id = ? LIMIT 1"
        return self._notes.execute(chosen, (holds, session_id)).fetchone() is not None
