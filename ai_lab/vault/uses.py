"""Uses of keys in the audit chain: the first of a minute before the secret is handed out, further ones counted."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from ai_lab.clock import now
from ai_lab.errors import LabError
from ai_lab.vault.audit import Audit
from ai_lab.vault.state import VaultState

_MINUTE_SECONDS = 60
#: Who uses keys: this program, for a request that the entry names.
_ACTOR = "lab"

_log = logging.getLogger(__name__)


@dataclass
class _Use:
    """Uses of one key: the minute that has its entry, and how many in it wait for the next one."""

    service_name: str
    label: str
    key_id: str | None
    minute: int = -1
    waiting: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uses:
    """Counts uses and writes them. A key of the environment has no id."""

    def __init__(self, state: VaultState) -> None:
        self._state = state
        self._uses: dict[tuple[str, str, str | None], _Use] = {}

    async def note(self, service_name: str, label: str, key_id: str | None) -> None:
        """Note a use; returns once the entry of this minute is durably there.

        Raises:
            VaultSealed, DatabaseUnavailable: there is no entry, and the key must not be used.
        """
        use = self._uses.get((service_name, label, key_id))
        if use is None:
            use = self._uses[service_name, label, key_id] = _Use(service_name, label, key_id)
        minute = _minute()
        if use.minute == minute:
            use.waiting += 1
            return
        async with use.turn:
            if use.minute == minute:
                use.waiting += 1
                return
            await self._write(use, use.waiting + 1)
            use.minute = minute

    async def write_waiting(self, *, all_of_them: bool) -> None:
        """Write what was counted in minutes that are over, or all of it. What cannot be written goes on waiting."""
        for use in list(self._uses.values()):
            async with use.turn:
                if use.waiting and (all_of_them or use.minute != _minute()):
                    await self._write(use, use.waiting)

    async def close(self) -> None:
        """Write all that waits."""
        try:
            await self.write_waiting(all_of_them=True)
        except LabError as error:
            _log.warning("uses of API keys could not be noted", extra={"reason": error.detail})

    async def _write(self, use: _Use, count: int) -> None:
        waited = use.waiting
        async with self._state.changing() as (db, repository):
            await Audit(self._state.keyring).append(
                db,
                action="use",
                outcome="ok",
                actor=_ACTOR,
                target=use.key_id,
                service_name=use.service_name,
                label=use.label,
                count=count,
            )
            if use.key_id:
                values: dict[str, Any] = {"last_used_at": now().replace(second=0, microsecond=0)}
                await repository.update_key(use.key_id, values)
        use.waiting -= waited  # those counted meanwhile go on waiting


def _minute() -> int:
    return int(time.monotonic() // _MINUTE_SECONDS)
