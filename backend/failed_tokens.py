"""Wrong tokens: counted for the rate limit, and noted for the audit without letting an attacker fill it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ai_lab.errors import LabError

_NOTE_SECONDS = 60.0
_MOST_ADDRESSES = 256
_OTHERS = "other addresses"

#: Writes to the audit that so many wrong tokens came from an address.
Note = Callable[[str, int], Awaitable[None]]

logger = logging.getLogger(__name__)


class FailedTokens:
    """Says when an address has shown too many wrong tokens, and notes at most one entry a minute for each address.

    The first is noted at once, those that follow within the minute with one entry at its end. Writing waits for no
    request, and no request for it.

    Args:
        limit: counts one for an address; returns the seconds to wait if there were too many.
        note: None where there is no audit; the log says it in any case.
    """

    def __init__(
        self,
        limit: Callable[[str], Awaitable[float | None]] | None = None,
        note: Note | None = None,
        *,
        note_seconds: float = _NOTE_SECONDS,
    ) -> None:
        self._limit = limit
        self._note = note
        self._note_seconds = note_seconds
        self._unnoted: dict[str, int] = {}
        self._noting: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def count(self, address: str) -> float | None:
        """Count a wrong token; returns the seconds that the address has to wait if there were too many, else None."""
        name = address if address in self._unnoted or len(self._unnoted) < _MOST_ADDRESSES else _OTHERS
        if name in self._unnoted:
            self._unnoted[name] += 1
        else:
            self._unnoted[name] = 1
            task = asyncio.create_task(self._note_in_turn(name))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)
        return await self._limit(address) if self._limit else None

    async def close(self) -> None:
        """Note what waits."""
        self._closing.set()
        if self._noting:
            await asyncio.wait(self._noting)

    async def _note_in_turn(self, name: str) -> None:
        while attempts := self._unnoted[name]:
            self._unnoted[name] = 0
            logger.warning("wrong token", extra={"client": name, "attempts": attempts})
            if self._note:
                try:
                    await self._note(name, attempts)
                except LabError as error:
                    logger.warning("wrong tokens are not in the audit: %s", error.detail)
            try:
                await asyncio.wait_for(self._closing.wait(), self._note_seconds)
            except TimeoutError:
                continue
        del self._unnoted[name]
