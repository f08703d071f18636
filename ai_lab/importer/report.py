"""What an import did, file by file, in little memory whatever the number of conversations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ai_lab.errors import SourceDamaged
from ai_lab.importer.measurements import MeasurementsOutcome
from ai_lab.importer.records import Holds, Source
from ai_lab.importer.service import Outcome

#: Of each file this many sessions, damages and warnings are named; all are counted.
NAMED_PER_FILE = 1000


@dataclass
class FileReport:
    """What became of one file (or one database)."""

    path: str
    kind: str
    conversations: int = 0
    messages: int = 0
    states: int = 0
    measurements: int = 0
    skipped: int = 0
    damaged: int = 0
    warnings: int = 0
    sessions: list[dict[str, Any]] = field(default_factory=list)
    damages: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def took(self, source: Source, outcome: Outcome) -> None:
        """Count a source that was read."""
        if source.holds == "states":
            self.states += outcome.added
        else:
            self.messages += outcome.added
            self.conversations += outcome.action == "new"
        self.skipped += not outcome.added
        self._name(source.holds, source.session_id, outcome)
        found = outcome.found
        if not outcome.added:
            return
        self.warnings += found.remark_count
        if len(self.remarks) < NAMED_PER_FILE:
            self.remarks += [f"{outcome.session_id}: {remark}" for remark in found.remarks]

    def measured(self, outcome: MeasurementsOutcome) -> None:
        """Count measurements; all of a file are one source."""
        self.measurements += outcome.added
        self.skipped += not outcome.added and outcome.found.count > 0
        for reason, count in outcome.found.left_out.items():
            self.warnings += count
            self.remarks.append(f"performance_metrics: {count} measurements were left out: {reason}")

    def refused(self, damage: SourceDamaged) -> None:
        """Count a source that cannot be imported."""
        self.damaged += 1
        if len(self.damages) < NAMED_PER_FILE:
            self.damages.append({"origin": damage.origin, "position": damage.position, "reason": damage.reason})

    def _name(self, holds: Holds, wanted: str, outcome: Outcome) -> None:
        renamed = outcome.session_id != wanted
        if renamed and outcome.added:
            self.warnings += 1
        if len(self.sessions) < NAMED_PER_FILE:
            session: dict[str, Any] = {"session_id": outcome.session_id, "holds": holds, "action": outcome.action}
            session |= {"added": outcome.added} | ({"named_in_source": _shown(wanted)} if renamed else {})
            self.sessions.append(session)


@dataclass
class ImportReport:
    """What became of everything; ``stopped`` says why the import ended early."""

    dry_run: bool
    database: str
    files: list[FileReport] = field(default_factory=list)
    stopped: str | None = None

    def total(self, name: str, files: Iterable[FileReport] | None = None) -> int:
        """Return the sum of one count."""
        return sum(getattr(file, name) for file in (self.files if files is None else files))

    @property
    def is_complete(self) -> bool:
        """Return whether everything could be imported."""
        return not self.stopped and not self.total("damaged")

    def as_json(self) -> dict[str, Any]:
        """Return the report with one entry per source."""
        totals = {name: self.total(name) for name in COUNTS}
        return {
            "dry_run": self.dry_run,
            "database": self.database,
            "complete": self.is_complete,
            "stopped": self.stopped,
            "totals": totals,
            "sources": [asdict(file) for file in self.files],
        }


COUNTS = ("conversations", "messages", "states", "measurements", "skipped", "damaged", "warnings")


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()
