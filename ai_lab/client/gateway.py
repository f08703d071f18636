"""Stored answers and breakers of a server, for both clients: ``client.cache`` and ``client.breakers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_lab.cache.schemas import CachedAnswerPage, CacheStats
from ai_lab.client import gateway_calls as calls
from ai_lab.gateway.schemas import BreakerState

if TYPE_CHECKING:
    from ai_lab.client.connection import AsyncConnection, Connection

Breakers = list[BreakerState]


class CacheClient:
    """The answers that a server has stored."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stats(self) -> CacheStats:
        """Return how much is stored, and how often it helped."""
        return self._connection.send(calls.cache_stats())

    def page(self, *, after: str | None = None, limit: int = 20) -> CachedAnswerPage:
        """Return stored answers without their texts, the newest first; ``after`` leads to the next ones."""
        return self._connection.send(calls.cached(after, limit))

    def clear(self) -> int:
        """Delete all stored answers and return how many there were."""
        return self._connection.send(calls.clear_cache()).deleted

    def evict(self, key: str) -> None:
        """Delete one, by the ``cache.key`` of an answer or list. Raises ``CachedAnswerNotFound``."""
        self._connection.send(calls.evict(key))


class BreakerClient:
    """The models of services that failed lately, and are left alone for a while."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Breakers:
        """Return them with the reason, and when each is tried again."""
        return self._connection.send(calls.breakers()).breakers

    def reset(self, model: str) -> None:
        """Let the next request try a model (``provider/model``). Raises ``NotFound`` where it did not fail."""
        self._connection.send(calls.reset_breaker(model))


class AsyncCacheClient:
    """``CacheClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def stats(self) -> CacheStats:
        """Return how much is stored, and how often it helped."""
        return await self._connection.send(calls.cache_stats())

    async def page(self, *, after: str | None = None, limit: int = 20) -> CachedAnswerPage:
        """Return stored answers without their texts, the newest first; ``after`` leads to the next ones."""
        return await self._connection.send(calls.cached(after, limit))

    async def clear(self) -> int:
        """Delete all stored answers and return how many there were."""
        return (await self._connection.send(calls.clear_cache())).deleted

    async def evict(self, key: str) -> None:
        """Delete one, by the ``cache.key`` of an answer or list. Raises ``CachedAnswerNotFound``."""
        await self._connection.send(calls.evict(key))


class AsyncBreakerClient:
    """``BreakerClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list(self) -> Breakers:
        """Return them with the reason, and when each is tried again."""
        return (await self._connection.send(calls.breakers())).breakers

    async def reset(self, model: str) -> None:
        """Let the next request try a model (``provider/model``). Raises ``NotFound`` where it did not fail."""
        await self._connection.send(calls.reset_breaker(model))
