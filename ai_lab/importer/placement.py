"""Where a source goes: nothing is ever mixed into a conversation that says something else.

Under its own name if that is free. If what is there is the beginning of the source, only the rest is added. If what is
there says something else, the source gets a name of its own: ``<session_id>-imported``.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, Protocol

from ai_lab.importer.cleaning import valid_session_id
from ai_lab.importer.records import Holds, Record, Source
from ai_lab.importer.repository import ImportRepository

_LONGEST_BASE = 230  # leaves room for the ending within the 255 characters of a session_id

#: Says whether what is there at one place is this record.
Matches = Callable[[Record], bool]


class Shelf(Protocol):
    """What is already there, in the database or in a rehearsal."""

    async def is_taken(self, holds: Holds, session_id: str) -> bool:
        """Return whether the name is in use."""

    def held(self, holds: Holds, session_id: str) -> AsyncGenerator[Matches, None]:
        """Yield what is there under that name, in order."""


@dataclass(frozen=True)
class Place:
    """A name, and how many of the source's first records are there already; None: the name is free."""

    session_id: str
    already_there: int | None


class DatabaseShelf:
    """What the database holds."""

    def __init__(self, repository: ImportRepository) -> None:
        self._repository = repository

    async def is_taken(self, holds: Holds, session_id: str) -> bool:
        """Return whether there is a conversation or an agent of that name."""
        return await self._repository.is_taken(holds, session_id)

    async def held(self, holds: Holds, session_id: str) -> AsyncGenerator[Matches, None]:
        """Yield its messages or states."""
        async with aclosing(self._repository.rows(holds, session_id)) as rows:
            async for row in rows:
                yield _matcher(row)


async def find_place(source: Source, shelf: Shelf) -> Place:
    """Return where the source goes."""
    for session_id in _names(valid_session_id(source.session_id)):
        if not await shelf.is_taken(source.holds, session_id):
            return Place(session_id, None)
        already_there = await _overlap(source, shelf.held(source.holds, session_id))
        if already_there is not None:
            return Place(session_id, already_there)
    raise AssertionError("unreachable: there is always a further name")


async def _overlap(source: Source, held: AsyncGenerator[Matches, None]) -> int | None:
    """Return how many records of the source are there, or None where it says something else."""
    count = 0
    with closing(source.read()) as records:
        async with aclosing(held):
            async for matches in held:
                record = next(records, None)
                if record is None:
                    break  # more is there than the source says
                if not matches(record):
                    return None
                count += 1
    return count


def _matcher(row: Mapping[str, Any]) -> Matches:
    def matches(record: Record) -> bool:
        has_same_time = record.moment is None or row["created_at"] == record.moment
        return has_same_time and all(row[name] == value for name, value in record.values.items())

    return matches


def _names(wanted: str) -> Iterator[str]:
    yield wanted
    base = wanted[:_LONGEST_BASE]
    yield f"{base}-imported"
    yield from (f"{base}-imported-{number}" for number in itertools.count(2))
