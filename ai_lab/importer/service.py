"""Bring sources in: each one whole and once, or not at all.

A source is read twice: first to its end, to see that it is whole and whether it is known; then again while its rows are
written, in one transaction together with its fingerprint. A program killed at any point leaves whole sources only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from ai_lab.clock import new_id, now
from ai_lab.database import Database
from ai_lab.errors import DatabaseBusy, SourceDamaged
from ai_lab.importer.cleaning import Cleaner
from ai_lab.importer.measurements import Measurements, MeasurementsOutcome, write_measurements
from ai_lab.importer.placement import DatabaseShelf, Place, Shelf, find_place
from ai_lab.importer.records import Holds, Record, Source
from ai_lab.importer.repository import ImportRepository
from ai_lab.importer.survey import Survey, dated, fingerprinted, survey
from ai_lab.telemetry.history.retention import Retention

_BATCH_ROWS = 200
_BATCH_CHARACTERS = 1_000_000
_ATTEMPTS = 12  # each waits for the database for some seconds
_TITLE_LENGTH = 500
_EMPTY: dict[Holds, dict[str, Any]] = {
    "messages": dict.fromkeys(
        ("thought_process", "model", "provider", "finish_reason", "usage", "timings", "error", "extra")
    )
    | {"status": "complete"},
    "states": {},
}


@dataclass(frozen=True)
class Outcome:
    """What became of a source: ``added`` records under ``session_id``.

    ``known`` was there already, ``deleted`` was imported once and deleted here since, ``empty`` says nothing.
    """

    action: Literal["new", "extended", "known", "deleted", "empty"]
    session_id: str
    added: int
    found: Survey


class Importing(Protocol):
    """Something that takes sources: the real import, or a rehearsal of it."""

    async def bring_in(self, source: Source, kind: str) -> Outcome:
        """Take one source. Raises ``SourceDamaged``."""

    async def bring_in_measurements(self, source: Measurements) -> MeasurementsOutcome:
        """Take the measurements of a file. Raises ``SourceDamaged``."""


class Importer:
    """Writes sources to the database."""

    def __init__(self, database: Database, retention: Retention | None = None) -> None:
        self._database = database
        self._retention = retention or Retention()

    async def bring_in_measurements(self, source: Measurements) -> MeasurementsOutcome:
        """Write measurements that are new; raises as ``bring_in`` does, and what is written stays."""
        return await write_measurements(self._database, source, self._retention)

    async def bring_in(self, source: Source, kind: str) -> Outcome:
        """Write one source, unless it is known.

        Raises:
            SourceDamaged: it cannot be read, or was changed meanwhile; nothing of it was written.
            DatabaseUnavailable: the database cannot be written; nothing of this source was.
        """
        found = survey(source)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._database.transaction() as db:
                    return await self._write(ImportRepository(db), source, kind, found)
            except DatabaseBusy:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _write(self, repository: ImportRepository, source: Source, kind: str, found: Survey) -> Outcome:
        outcome, place = await decide(repository, DatabaseShelf(repository), source, found)
        if place is None:
            return outcome
        noted = {
            "fingerprint": found.fingerprint,
            "kind": kind,
            "origin": Cleaner().text(source.origin),
            "session_id": place.session_id,
            "rows_added": outcome.added,
            "imported_at": now(),
        }
        if not await repository.remember(noted):
            raise _overtaken()
        if outcome.added:
            await self._write_rows(repository, source, found, place)
        return outcome

    async def _write_rows(self, repository: ImportRepository, source: Source, found: Survey, place: Place) -> None:
        last = found.last_moment
        skip = place.already_there or 0
        if place.already_there is None:
            values = _owner(source, found, place.session_id, last)
            if not await repository.create(source.holds, values):
                raise _overtaken()
        elif await repository.extend(source.holds, place.session_id, found.count - skip, last) != skip + 1:
            raise _overtaken()
        again = Survey()
        records = dated(fingerprinted(source, again), found.first_moment)
        for batch in _batches(_row(source.holds, place.session_id, *numbered) for numbered in enumerate(records, 1)):
            new = [row for row in batch if row["sequence"] > skip]
            if new:
                await repository.add(source.holds, new)
        if again.fingerprint != found.fingerprint:
            raise SourceDamaged("was changed while it was read; import it again", origin=source.origin)


async def decide(
    repository: ImportRepository | None, shelf: Shelf, source: Source, found: Survey
) -> tuple[Outcome, Place | None]:
    """Return what will become of a source, and its place unless there is nothing to note."""
    if not found.count:
        return Outcome("empty", source.session_id, 0, found), None
    known_as = await repository.imported(found.fingerprint) if repository else None
    if known_as is not None:
        is_there = await shelf.is_taken(source.holds, known_as)
        return Outcome("known" if is_there else "deleted", known_as, 0, found), None
    place = await find_place(source, shelf)
    added = found.count - (place.already_there or 0)
    action: Literal["new", "extended", "known"] = "known" if not added else "extended"
    return Outcome("new" if place.already_there is None else action, place.session_id, added, found), place


def _overtaken() -> DatabaseBusy:
    return DatabaseBusy("Another program writes under the same session_id. Try again in a moment.")


def _owner(source: Source, found: Survey, session_id: str, last: datetime) -> dict[str, Any]:
    """Return the columns of a new conversation or agent."""
    owner: dict[str, Any] = {"session_id": session_id, "last_sequence": found.count, "updated_at": last}
    if source.holds == "states":
        return owner
    header = dict(source.header)
    title = header.get("title") or found.title
    metadata = dict(header.get("metadata") or {})
    if title and len(title) > _TITLE_LENGTH:
        metadata["title"], title = title, title[: _TITLE_LENGTH - 1] + "…"
    return owner | {
        "title": title,
        "archived": header.get("archived", False),
        "local_only": header.get("local_only", False),
        "metadata": metadata or None,
        "created_at": header.get("created_at") or found.first_moment,
    }


def _row(holds: Holds, session_id: str, sequence: int, said: tuple[Record, datetime]) -> dict[str, Any]:
    record, moment = said
    row = _EMPTY[holds] | record.values | {"session_id": session_id, "sequence": sequence, "created_at": moment}
    if holds == "states":
        return row | {"state_id": new_id()}
    return row | {"message_id": new_id(), "updated_at": moment}


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in batches that need little memory."""
    batch: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
