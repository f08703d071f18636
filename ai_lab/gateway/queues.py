"""How much a service is asked: requests at once, and requests and tokens in a period of time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

from ai_lab.database import Database
from ai_lab.errors import ServiceLimited
from ai_lab.gateway.leases import Leases
from ai_lab.gateway.places import Places
from ai_lab.gateway.schemas import ServiceUse
from ai_lab.gateway.slots_repository import SharedSlots
from ai_lab.rate_limits import RateLimits
from ai_lab.settings import Settings
from ai_lab.settings.entries import ServiceLimits

#: Where nothing is configured: of a service elsewhere, and of one on this machine, which has a queue of its own.
PLACES_ELSEWHERE, PLACES_HERE = 32, 64
#: A request waits for its share of a period if it comes within this time; the user should hear of a longer wait.
_PERIOD_PATIENCE_SECONDS = 5.0
#: Waiting ends so long before the call's time is over: the error then says what was waited for.
_TO_SAY_WHY_SECONDS = 0.05
_NO_LIMITS = ServiceLimits()

Result = TypeVar("Result")


def _unobserved(_scope: str) -> None:
    """See nothing."""


class ServiceQueue:
    """Lets requests to services through, in the order in which they came.

    What the settings name is shared by all servers on one Postgres; so are periods on Redis. The places that a service
    has where nothing is configured are of this server alone.

    Args:
        settings: of the lab.
        database: of all servers.
        observe: is told of each request that is held back: ``concurrency``, ``requests`` or ``tokens``.

    Raises:
        InvalidSettings: a limit cannot be used; the text names it.
    """

    def __init__(self, settings: Settings, database: Database, *, observe: Callable[[str], None] = _unobserved) -> None:
        self._limits = settings.service_limits
        self._periods = RateLimits.of_services(settings, database)
        self._leases = None if database.is_sqlite else Leases(SharedSlots(database))
        self._places: dict[str, Places] = {}
        self._period_turns: dict[str, asyncio.Lock] = {}
        self._observe = observe

    def counts_tokens(self, service: str) -> bool:
        """Return whether the service has a limit on tokens, so that they must be estimated."""
        return self._limits.get(service, _NO_LIMITS).tokens is not None

    @asynccontextmanager
    async def place(
        self, service: str, *, is_local: bool = False, tokens: int = 0, deadline: float = math.inf
    ) -> AsyncIterator[None]:
        """Hold one of the service's places for as long as the block lasts.

        Args:
            service: the provider's name.
            is_local: whether it is on this machine.
            tokens: what the request will take, as an estimate: it is not corrected later.
            deadline: by the loop's clock; nobody waits longer.

        Raises:
            ServiceLimited: there was no place in time, or the period's share is used up; with the seconds until there
                is some again, where that is known.
        """
        places = self._places.get(service) or self._new_places(service, is_local=is_local)
        slot: str | None = None
        if not places.take_at_once():
            self._observe("concurrency")
            await self._in_time(places.take(), service, deadline)
        try:
            limits = self._limits.get(service)
            if limits is not None:
                if self._leases and limits.concurrency is not None:
                    slot = await self._in_time(self._leases.take(service, limits.concurrency), service, deadline)
                await self._wait_for_share(service, "requests", 1, deadline)
                await self._wait_for_share(service, "tokens", tokens, deadline)
            yield
        finally:
            places.leave()
            if slot and self._leases:
                self._leases.free(slot)

    def uses(self) -> list[ServiceUse]:
        """Return the services that were asked or have limits, by name; no I/O."""
        uses = []
        for service in sorted({*self._places, *self._limits}):
            limits = self._limits.get(service, _NO_LIMITS)
            places = self._places.get(service)
            most = limits.concurrency or (places.most if places else PLACES_ELSEWHERE)
            uses.append(
                ServiceUse(
                    service=service,
                    concurrency=most,
                    is_shared=self._leases is not None and limits.concurrency is not None,
                    in_use=places.in_use if places else 0,
                    waiting=places.waiting if places else 0,
                    requests=limits.requests,
                    tokens=limits.tokens,
                )
            )
        return uses

    async def close(self) -> None:
        """Give places back and close what is open."""
        if self._leases:
            await self._leases.close()
        await self._periods.close()

    def _new_places(self, service: str, *, is_local: bool) -> Places:
        configured = self._limits.get(service, _NO_LIMITS).concurrency
        places = self._places[service] = Places(configured or (PLACES_HERE if is_local else PLACES_ELSEWHERE))
        return places

    async def _wait_for_share(
        self, service: str, kind: Literal["requests", "tokens"], cost: int, deadline: float
    ) -> None:
        """Take ``cost`` of the service's share of this period; those that came earlier are first."""
        name = f"service_{kind}/{service}"
        if not self._periods.has(name):
            return
        loop = asyncio.get_running_loop()
        patience_until = min(loop.time() + _PERIOD_PATIENCE_SECONDS, deadline)
        wait_seconds, is_held_back = 0.0, False
        try:
            async with asyncio.timeout_at(patience_until), self._period_turns.setdefault(name, asyncio.Lock()):
                while True:
                    window = await self._periods.hit(name, service, cost=cost)
                    if window.allowed:
                        return
                    if not is_held_back:
                        self._observe(kind)
                    is_held_back = True
                    wait_seconds = window.retry_after_seconds or 1.0
                    if loop.time() + wait_seconds > patience_until:
                        break
                    await asyncio.sleep(wait_seconds)
        except TimeoutError:
            if not is_held_back:
                self._observe(kind)
        configured = getattr(self._limits[service], kind)
        raise ServiceLimited(
            f"AI_LAB_SERVICE_LIMITS allows {service} {configured} ({kind}), and they are used up. Try again in "
            f"{math.ceil(wait_seconds or _PERIOD_PATIENCE_SECONDS)} s, name another model, or raise the limit.",
            retry_after_seconds=wait_seconds or _PERIOD_PATIENCE_SECONDS,
        )

    async def _in_time(self, work: Awaitable[Result], service: str, deadline: float) -> Result:
        try:
            async with asyncio.timeout_at(None if math.isinf(deadline) else deadline - _TO_SAY_WHY_SECONDS):
                return await work
        except TimeoutError:
            raise ServiceLimited(
                f"{service} answers as many requests at once as it may, and none of them ended in time. Try again in a "
                "moment, name another model, or raise its concurrency in AI_LAB_SERVICE_LIMITS.",
                retry_after_seconds=1,
            ) from None
