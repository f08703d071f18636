"""What can be asked of a server about its gateway: breakers, stored answers, the rules for both."""

from __future__ import annotations

from urllib.parse import quote

from ai_lab.cache.schemas import CachedAnswerPage, CacheStats, Deleted
from ai_lab.client.calls import Call, once, place
from ai_lab.errors import CachedAnswerNotFound, NotFound
from ai_lab.gateway.schemas import BreakerList, GatewayOverview


def overview() -> Call[GatewayOverview]:
    """Say how requests get to models."""
    return Call("GET", "/gateway", GatewayOverview.model_validate_json)


def breakers() -> Call[BreakerList]:
    """List the models that failed lately."""
    return Call("GET", "/gateway/breakers", BreakerList.model_validate_json)


def reset_breaker(model: str) -> Call[None]:
    """Forget that a model failed; ``model`` is provider/model, and its own name may have slashes."""
    provider, _, name = model.partition("/")
    path = f"{place('gateway', 'breakers', provider)}/{quote(name)}"
    return Call("DELETE", path, lambda _: None, headers=once(), settled_by=NotFound)


def cache_stats() -> Call[CacheStats]:
    """Say how much is stored."""
    return Call("GET", "/cache/stats", CacheStats.model_validate_json)


def cached(after: str | None, limit: int) -> Call[CachedAnswerPage]:
    """List stored answers."""
    return Call("GET", "/cache", CachedAnswerPage.model_validate_json, {"limit": limit, "after": after})


def clear_cache() -> Call[Deleted]:
    """Delete all stored answers."""
    return Call("DELETE", "/cache", Deleted.model_validate_json, headers=once())


def evict(key: str) -> Call[None]:
    """Delete one stored answer."""
    return Call("DELETE", place("cache", key), lambda _: None, headers=once(), settled_by=CachedAnswerNotFound)
