"""Windows that the library ``limits`` counts: in this process or on Redis."""

from __future__ import annotations

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.errors import ConfigurationError

from ai_lab.errors import InvalidSettings
from ai_lab.rate_limits.memory import BoundedMemory
from ai_lab.rate_limits.window import Usage


class LibraryWindows:
    """Windows in a store of the library."""

    def __init__(self, storage: MemoryStorage | RedisStorage) -> None:
        self._storage = storage

    @classmethod
    def in_memory(cls) -> LibraryWindows:
        """Return windows of this process alone."""
        return cls(BoundedMemory())

    @classmethod
    def on_redis(cls, url: str) -> LibraryWindows:
        """Return windows on a Redis server; nothing is sent yet.

        Raises:
            InvalidSettings: the address or the installation is not fit for it; the text never holds the address, which
                may have a password in it.
        """
        if not url.removeprefix("async+").startswith(("redis://", "rediss://", "redis+unix://")):
            raise InvalidSettings("REDIS_URL must be redis://host:port/0, rediss://… (TLS) or redis+unix:///path.")
        try:
            return cls(RedisStorage(url, wrap_exceptions=True, implementation="redispy", key_prefix="ai_lab"))
        except ConfigurationError as error:
            if "prerequisite" in str(error) or "minimum version" in str(error):
                raise InvalidSettings("REDIS_URL needs a package: pip install 'ai-lab[redis]'.") from None
            raise InvalidSettings("REDIS_URL must name host and port: redis://host:6379/0.") from None
        except ValueError:
            raise InvalidSettings("REDIS_URL cannot be read. It looks like redis://:password@host:6379/0.") from None

    async def take(self, key: str, limit: int, period_seconds: int, cost: int = 1) -> Usage:
        """Count ``cost`` for ``key`` if that fits in, and return what is used.

        Raises:
            limits.errors.StorageError: Redis cannot be reached or used.
        """
        allowed = await self._storage.acquire_sliding_window_entry(key, limit, period_seconds, cost)
        window = await self._storage.get_sliding_window(key, period_seconds)
        previous, previous_seconds, current, current_seconds = window
        # A counter is kept for two periods, the second one as the window before.
        left_seconds = max(0.0, current_seconds - period_seconds) if current else float(period_seconds)
        return Usage(allowed, previous, previous_seconds, current, left_seconds)

    async def purge(self) -> None:
        """Both stores forget by themselves."""

    async def close(self) -> None:
        """Close the connections to Redis."""
        if isinstance(self._storage, RedisStorage) and isinstance(self._storage.bridge, RedispyBridge):
            await self._storage.bridge.storage.aclose()
