"""Says whether a client may do one more thing, and never stands in the way when it cannot tell."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, Protocol, get_args

from limits import RateLimitItem, parse_many
from limits.errors import StorageError

from ai_lab.database import Database
from ai_lab.errors import InvalidSettings, LabError
from ai_lab.rate_limits.library import LibraryWindows
from ai_lab.rate_limits.repository import SharedWindows
from ai_lab.rate_limits.window import UNLIMITED, Usage, Window
from ai_lab.settings import Settings, setting_names

LimitName = Literal["requests", "model_calls", "keys", "failures"]

#: What a column of the windows holds.
_MOST = 2**31 - 1
#: No request waits longer than this for a store.
_PATIENCE_SECONDS = 0.25
#: After a store has failed, this process counts by itself for so long.
_ALONE_SECONDS = 5.0
#: Connections that counting may use at once; those of the database are for what is counted.
_AT_ONCE = 4
_PURGE_SECONDS = 60.0
_WARN_SECONDS = 60.0
_Failure = (StorageError, LabError, OSError, TimeoutError)

logger = logging.getLogger(__name__)


class Windows(Protocol):
    """A store that several servers may share."""

    async def take(self, key: str, limit: int, period_seconds: int, cost: int = 1) -> Usage:
        """Count ``cost`` if that fits in."""
        ...

    async def purge(self) -> None:
        """Delete what weighs nothing any more."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class RateLimits:
    """Counts requests per client: in this process, and where several servers work together, in a store they share.

    A store that fails or is slow never refuses or holds up anybody: this process counts alone then, for some seconds.

    Args:
        limits: how much is allowed; a name that is missing is not limited.
        shared: the store of all servers; None where there is one server.

    Attributes:
        store_failures: how often the shared store could not be used.
    """

    def __init__(self, limits: Mapping[str, RateLimitItem], shared: Windows | None = None) -> None:
        self._limits = limits
        self._own = LibraryWindows.in_memory()
        self._shared = shared
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._alone_until = self._warn_after = self._purge_after = 0.0
        self._purging: asyncio.Task[None] | None = None
        self.store_failures = 0

    @classmethod
    def open(cls, settings: Settings, database: Database) -> RateLimits:
        """Return the limits that the settings name; connects nowhere yet.

        Raises:
            InvalidSettings: a limit or the address of Redis cannot be used; the text names the setting.
        """
        limits = {name: _parsed(settings, name) for name in get_args(LimitName)}
        return cls(limits, _shared(settings, database)) if settings.rate_limits else cls({})

    @classmethod
    def of_services(cls, settings: Settings, database: Database) -> RateLimits:
        """Return the limits on what services are asked, named ``service_requests/…`` and ``service_tokens/…``.

        They hold also where clients are not limited: they keep this lab within what its services allow it.

        Raises:
            InvalidSettings: a limit cannot be used; the text names it.
        """
        limits = {
            f"service_{kind}/{service}": _period(text, f"{kind} of {service} in AI_LAB_SERVICE_LIMITS")
            for service, entry in settings.service_limits.items()
            for kind, text in (("requests", entry.requests), ("tokens", entry.tokens))
            if text is not None
        }
        return cls(limits, _shared(settings, database)) if limits else cls({})

    def has(self, name: str) -> bool:
        """Return whether there is a limit of this name."""
        return name in self._limits

    async def hit(self, name: LimitName | str, client: str, endpoint: str = "", *, cost: int = 1) -> Window:
        """Count one request of a client if it is allowed, and return what it may still do.

        Args:
            name: of the limit.
            client: who it is; only a digest of it is kept.
            endpoint: what is counted apart, one of a bounded number.
            cost: what it counts as, where that is not 1; more than the whole limit counts as all of it.
        """
        item = self._limits.get(name)
        if item is None:
            return UNLIMITED
        period_seconds = item.get_expiry()
        key = _key(name, period_seconds, client, endpoint)
        cost = min(cost, item.amount)
        usage: Usage | None = None
        if self._shared and name != "failures":  # whether a token is right must not depend on a store
            usage = await self._take_shared(self._shared, key, item, cost)
        if usage is None:
            usage = await self._own.take(key, item.amount, period_seconds, cost)
        return Window.of(usage, item.amount, period_seconds, cost)

    async def close(self) -> None:
        """End what is under way and close the connections of the store."""
        if self._purging:
            self._purging.cancel()
            await asyncio.wait({self._purging})
        if self._shared:
            await self._shared.close()

    async def _take_shared(self, shared: Windows, key: str, item: RateLimitItem, cost: int) -> Usage | None:
        """Return the usage by the store of all servers, None while that cannot be used."""
        now = time.monotonic()
        if now < self._alone_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._turns:
                usage = await shared.take(key, item.amount, item.get_expiry(), cost)
        except _Failure as error:
            self._failed(error)
            return None
        if now >= self._purge_after and (self._purging is None or self._purging.done()):
            self._purge_after = now + _PURGE_SECONDS
            self._purging = asyncio.create_task(_purge(shared))
        return usage

    def _failed(self, error: BaseException) -> None:
        now = time.monotonic()
        self.store_failures += 1
        self._alone_until = now + _ALONE_SECONDS
        if now >= self._warn_after:
            self._warn_after = now + _WARN_SECONDS
            logger.warning(
                "the store of rate limits cannot be used (%s, %d times so far): this server counts by itself meanwhile",
                type(error).__name__,
                self.store_failures,
            )


async def _purge(shared: Windows) -> None:
    try:
        await shared.purge()
    except _Failure as error:
        logger.debug("old windows are still there: %s", type(error).__name__)


@lru_cache(maxsize=1024)
def _key(name: str, period_seconds: int, client: str, endpoint: str) -> str:
    digest = hashlib.blake2b(f"{client}\0{endpoint}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name}/{period_seconds}/{digest}"


def _shared(settings: Settings, database: Database) -> Windows | None:
    """Return the store of all servers; None where there is one server."""
    if settings.redis_url:
        return LibraryWindows.on_redis(settings.redis_url.get_secret_value())
    return None if database.is_sqlite else SharedWindows(database)


def _parsed(settings: Settings, name: LimitName) -> RateLimitItem:
    field = f"rate_limit_{name}"
    remedy = " To limit nothing, set AI_LAB_RATE_LIMITS=false."
    return _period(getattr(settings, field), setting_names()[field], remedy)


def _period(text: str, setting: str, remedy: str = "") -> RateLimitItem:
    try:
        (item,) = parse_many(text)
    except ValueError:
        item = None
    if item is None or not 1 <= item.amount <= _MOST or item.get_expiry() < 1:
        raise InvalidSettings(f"{setting} must be a number per period, such as 600/minute or 20 per second.{remedy}")
    return item
