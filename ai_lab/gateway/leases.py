"""Places at a service that all servers on one Postgres share: taken for a while, renewed, and given back."""

from __future__ import annotations

import asyncio
import logging
import time

from ai_lab.clock import new_id
from ai_lab.errors import LabError
from ai_lab.gateway.slots_repository import SharedSlots

#: After a server has died, its places are free again after this time.
_LEASE_SECONDS = 30.0
#: While all places are taken, they are looked at first after this time, and later more seldom.
_LOOK_SECONDS = 0.03
_LONGEST_LOOK_SECONDS = 0.5
#: No request waits longer than this for the database.
_PATIENCE_SECONDS = 1.0
#: After the database has failed, this server counts by itself for so long.
_ALONE_SECONDS = 5.0
_Failure = (LabError, OSError, TimeoutError)

logger = logging.getLogger(__name__)


class Leases:
    """Takes places in order within this server; among servers, whoever looks first.

    Where the database cannot be used, requests are let through: what the server's own count allows then.
    """

    def __init__(self, slots: SharedSlots) -> None:
        self._slots = slots
        self._turns: dict[str, asyncio.Lock] = {}
        self._held: set[str] = set()
        self._freed: list[str] = []
        self._renewing: asyncio.Task[None] | None = None
        self._freeing: asyncio.Task[None] | None = None
        self._alone_until = 0.0

    async def take(self, service: str, most: int) -> str | None:
        """Wait for a place and return its id, None while the database cannot say."""
        wait_seconds = _LOOK_SECONDS
        async with self._turns.setdefault(service, asyncio.Lock()):
            while time.monotonic() >= self._alone_until:
                slot = new_id()
                try:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        has_place = await self._slots.take(slot, service, most, _LEASE_SECONDS)
                except _Failure as error:
                    self._failed(error)
                    self.free(slot)  # it may have been taken all the same
                    break
                except asyncio.CancelledError:
                    self.free(slot)
                    raise
                if has_place:
                    self._held.add(slot)
                    if self._renewing is None or self._renewing.done():
                        self._renewing = asyncio.create_task(self._renew())
                    return slot
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, _LONGEST_LOOK_SECONDS)
        return None

    def free(self, slot: str) -> None:
        """Give a place back in the background."""
        self._held.discard(slot)
        self._freed.append(slot)
        if self._freeing is None or self._freeing.done():
            self._freeing = asyncio.create_task(self._free())

    async def close(self) -> None:
        """Give back what is held."""
        if self._renewing:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        for slot in list(self._held):
            self.free(slot)
        if self._freeing:
            await self._freeing

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(_LEASE_SECONDS / 3)
            try:
                await self._slots.renew(list(self._held), _LEASE_SECONDS)
            except _Failure as error:
                self._failed(error)

    async def _free(self) -> None:
        while self._freed:
            ids, self._freed = self._freed, []
            try:
                await self._slots.free(ids)
            except _Failure as error:  # they expire
                self._failed(error)

    def _failed(self, error: BaseException) -> None:
        now = time.monotonic()
        if now >= self._alone_until:
            logger.warning(
                "places at services cannot be counted in the database (%s): this server counts by itself meanwhile",
                type(error).__name__,
            )
        self._alone_until = now + _ALONE_SECONDS
