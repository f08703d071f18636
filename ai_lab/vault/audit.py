"""The audit chain: who did what with which key, written in the unit of work that does it.

    mac(n) = HMAC-SHA256(audit key, canonical JSON of [format, every field of entry n, mac(n-1)])

``verify`` therefore sees a changed, removed, inserted or moved entry and names the first one. What it cannot see:

- Whoever has the root key has the audit key, and can write the whole chain anew.
- Whoever cuts off the newest entries and sets the vault's row back to match leaves a shorter chain that is whole, as
  does whoever puts back an old copy of the database. Only a head that was noted elsewhere shows it: it is logged at
  start, at close and as it grows, exported as a metric, and may be given to ``verify`` as ``anchor``.
- After a reset the chain goes on under a new key: of the entries before it only the order is checked, since the key
  that could check more is lost.

The audit key lies in the keyring and outlives rotation and re-key, and with it the chain.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab import cursor
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import InvalidRequest
from ai_lab.logging import request_ids
from ai_lab.vault.audit_repository import AuditRepository, Head
from ai_lab.vault.keyring import Keyring
from ai_lab.vault.schemas import AuditEntry, AuditPage, AuditVerification

#: The action of the first entry under a new keyring.
RESET = "reset"

_FORMAT = "ai-lab/vault/audit/v1"
_FIELDS = (
    "sequence",
    "at",
    "actor",
    "action",
    "target",
    "service_name",
    "label",
    "outcome",
    "request_id",
    "count",
    "details",
    "previous_mac",
)
_ACTOR_LENGTH, _LABEL_LENGTH, _REQUEST_ID_LENGTH = 255, 64, 128
_ENTRIES_AT_ONCE = 500  # 10 ms of work, after which others have their turn
_ANCHOR = re.compile(r"(?P<sequence>[0-9]{1,18}):(?P<mac>[0-9a-f]{64})")


class Audit:
    """Appends to the chain, reads it and verifies it.

    Args:
        keyring: any state of it; the audit key is the same in all.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._key = keyring.audit_key

    async def append(
        self,
        db: AsyncConnection,
        *,
        action: str,
        outcome: str,
        actor: str,
        target: str | None = None,
        service_name: str | None = None,
        label: str | None = None,
        count: int = 1,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry to the caller's unit of work, which is durable and holds the vault's row.

        Args:
            db: of the caller.
            action: what was done, as ``create`` or ``rotate_started``.
            outcome: ``ok`` or a stable name of what went wrong.
            actor: who did it, as ``cli:anna`` or ``http:127.0.0.1``.
            target: id of the key.
            service_name: of the key.
            label: of the key.
            count: how many equal events the entry stands for.
            details: what else is worth knowing; never a secret.
        """
        repository = AuditRepository(db)
        head = await repository.head()
        ids = request_ids.get()
        row: dict[str, Any] = {
            "sequence": head.sequence + 1,
            "at": now(),
            "actor": _storable(actor, _ACTOR_LENGTH),
            "action": action,
            "target": target,
            "service_name": _storable(service_name, _LABEL_LENGTH),
            "label": _storable(label, _LABEL_LENGTH),
            "outcome": outcome,
            "request_id": _storable(ids.request_id, _REQUEST_ID_LENGTH) if ids else None,
            "count": count,
            "details": json.loads(json.dumps(details or {})),  # as it will come back
            "previous_mac": head.mac,
        }
        await repository.add(row | {"mac": _mac(self._key, row)})

    @staticmethod
    async def page(database: Database, limit: int = 20, after: str | None = None) -> AuditPage:
        """Return entries, the newest first; no key is needed. Raises ``InvalidCursor``."""
        before = cursor.decode_number(after) if after is not None else None
        async with database.reading() as db:
            rows = await AuditRepository(db).newest(limit + 1, before)
        has_more = len(rows) > limit
        entries = [AuditEntry.model_validate(row) for row in rows[:limit]]
        return AuditPage(
            data=entries, has_more=has_more, after=cursor.encode(entries[-1].sequence) if has_more else None
        )

    async def verify(self, database: Database, anchor: str | None = None) -> AuditVerification:
        """Walk the chain from its beginning to its head as it is now.

        Args:
            database: where the chain lies.
            anchor: a head noted elsewhere, as ``sequence:mac``.

        Raises:
            InvalidRequest: the anchor is not of that form.
        """
        noted = _anchor(anchor) if anchor is not None else None
        async with database.reading() as db:
            head, highest = await AuditRepository(db).extent()
            readable_from = await AuditRepository(db).newest_of(RESET)
        walk = _Walk(self._key, readable_from, noted)
        # The chain up to its head stands still: nothing is locked over the whole walk.
        at_once = _ENTRIES_AT_ONCE
        while walk.fault is None:
            try:
                async with database.reading() as db:
                    rows = await AuditRepository(db).following(walk.last.sequence, head.sequence, at_once)
                walk.over(rows)
            except (ValueError, TypeError):  # a value that no entry was ever written with: which one is it?
                if at_once == 1:
                    walk.fault = (walk.last.sequence + 1, "This entry was changed: it cannot even be read.")
                at_once = 1
            else:
                if not rows:
                    break
        fault = walk.fault or _fault_of_end(walk.last, head, highest, noted)
        return AuditVerification(
            is_intact=fault is None,
            entries=walk.entries,
            first_bad_sequence=fault[0] if fault else None,
            reason=fault[1] if fault else None,
            head=_spelled(head) if head.sequence else None,
        )


class _Walk:
    """Checks entries in their order; ``fault`` is the first thing wrong: a number and why."""

    def __init__(self, key: bytes, readable_from: int, anchor: Head | None) -> None:
        self._key = key
        self._readable_from = readable_from
        self._anchor = anchor
        self.last = Head(0, "")
        self.entries = 0
        self.fault: tuple[int, str] | None = None

    def over(self, rows: list[dict[str, Any]]) -> None:
        """Go on over further entries, up to the first bad one."""
        for row in rows:
            self.fault = self._fault_of(row)
            if self.fault:
                return
            self.entries += 1
            self.last = Head(row["sequence"], row["mac"])

    def _fault_of(self, row: dict[str, Any]) -> tuple[int, str] | None:
        sequence = row["sequence"]
        if sequence != self.last.sequence + 1:
            return self.last.sequence + 1, "This entry is missing."
        if row["previous_mac"] != self.last.mac:
            return sequence, "This entry does not follow the one before it: one of them was moved, removed or inserted."
        if sequence >= self._readable_from and not hmac.compare_digest(row["mac"], _mac(self._key, row)):
            return sequence, "This entry was changed, or was not written by this vault."
        if self._anchor and sequence == self._anchor.sequence and row["mac"] != self._anchor.mac:
            return sequence, "This entry is not the one that was noted: the chain was written anew up to here."
        return None


def _fault_of_end(last: Head, head: Head, highest: int, anchor: Head | None) -> tuple[int, str] | None:
    """Return what is wrong with the end of a chain that is whole up to ``last``."""
    if last.sequence < head.sequence:
        return last.sequence + 1, f"The newest entries are missing: the vault wrote {head.sequence}."
    if last.mac != head.mac:
        return head.sequence, "The newest entry is not the one that the vault wrote last."
    if highest > head.sequence:
        return head.sequence + 1, "Entries were added that the vault did not write."
    if anchor and anchor.sequence > head.sequence:
        return head.sequence + 1, f"The newest entries are missing: entry {anchor.sequence} was noted."
    return None


def _mac(key: bytes, row: dict[str, Any]) -> str:
    values = [_FORMAT, *(_plain(row[name]) for name in _FIELDS)]
    canonical = json.dumps(values, separators=(",", ":"), sort_keys=True)
    return hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def _storable(text: str | None, length: int) -> str | None:
    """Return what both databases take: no NUL, no half characters, not too long. An entry must not fail on a name."""
    return text.replace("\x00", "�").encode(errors="replace").decode()[:length] if text is not None else None


def _anchor(text: str) -> Head:
    match = _ANCHOR.fullmatch(text.strip().lower())
    if match is None:
        raise InvalidRequest("An anchor looks like 42:<64 hex digits>, as it stands in the log.", param="anchor")
    return Head(int(match["sequence"]), match["mac"])


def _spelled(head: Head) -> str:
    return f"{head.sequence}:{head.mac}"
