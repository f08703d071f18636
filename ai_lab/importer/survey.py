"""The first look at a source: it is read to its end, so that nothing is written of one that is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ai_lab.clock import now
from ai_lab.conversations.service import title_of
from ai_lab.importer.records import Record, Records, Source

_REMARKS_KEPT = 20
_UNKNOWN = datetime.min.replace(tzinfo=UTC)


@dataclass
class Survey:
    """What a source holds."""

    count: int = 0
    fingerprint: str = ""
    title: str | None = None
    first_moment: datetime = _UNKNOWN
    last_moment: datetime = _UNKNOWN
    remarks: list[str] = field(default_factory=list)
    remark_count: int = 0


def survey(source: Source) -> Survey:
    """Read a source to its end. Raises ``SourceDamaged``."""
    found = Survey()
    first = last = None
    for number, record in enumerate(fingerprinted(source, found), 1):
        found.count = number
        first, last = first or record.moment, record.moment or last
        if found.title is None and record.values.get("role") == "user":
            found.title = title_of(record.values["content"])
        found.remark_count += len(record.remarks)
        kept = record.remarks[: _REMARKS_KEPT - len(found.remarks)]
        found.remarks += [f"{source.holds[:-1]} {number}: {remark}" for remark in kept]
    found.first_moment = first or source.written_at or now()
    found.last_moment = last or found.first_moment
    return found


def fingerprinted(source: Source, found: Survey) -> Records:
    """Yield the records and set ``found.fingerprint``: SHA-256 over what is said, not over where it lies."""
    session = hashlib.sha256(source.session_id.encode("utf-8", "surrogatepass")).digest()
    said = hashlib.sha256(source.holds.encode() + session)
    with closing(source.read()) as records:
        for record in records:
            said.update(record.digest())
            yield record
    found.fingerprint = said.hexdigest()


def dated(records: Iterator[Record], first_moment: datetime) -> Iterator[tuple[Record, datetime]]:
    """Yield each record with its moment, or else that of its neighbour before it (at the start: after it)."""
    moment = first_moment
    for record in records:
        moment = record.moment or moment
        yield record, moment
