"""Which limit counts which request, and how the answers say so."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_lab.access import Client
from ai_lab.errors import RateLimited
from ai_lab.rate_limits import LimitName, RateLimits
from ai_lab.settings import setting_names
from backend import errors

_PROBES = {"/health", "/health/live", "/health/ready", "/health/detailed"}
_FILES = ("/docs/assets/", "/login/")
_MODEL_CALLS = {"/chat", "/v1/chat/completions", "/v1/embeddings", "/benchmark/llm"}
_REPLAY = re.compile(r"/traces/[^/]+/replay")
_BENCHMARK = re.compile(r"/benchmarks(?:/compare|/[^/]+/(?:resume|rerun))?")
_READING = {"GET", "HEAD", "OPTIONS"}
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_OTHER = "other"


class LimitedRequests:
    """Plain ASGI; stands inside of what says who the client is.

    Args:
        app: answers the requests.
        limits: counts them.
        paths: those of the routes. What is counted apart is a method with a path that is spelled out, or with the
            first part of one that has names in it: few enough to be counted for each client.
    """

    def __init__(self, app: ASGIApp, limits: RateLimits, paths: Iterable[str]) -> None:
        self._app = app
        self._limits = limits
        self._spelled_out = {path for path in paths if "{" not in path}
        self._first_parts = {path.split("/", 2)[1] for path in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path = scope.get("path", "")
        if scope["type"] != "http" or path in _PROBES or path.startswith(_FILES):
            await self._app(scope, receive, send)
            return
        name, endpoint = self._limit_of(scope["method"], path)
        window = await self._limits.hit(name, _who(scope["state"]["client"]), endpoint)
        if not window.limit:
            await self._app(scope, receive, send)
            return

        def send_with_limit(message: Message) -> Awaitable[None]:  # no coroutine of its own: it runs for each chunk
            if message["type"] == "http.response.start":
                # As in the third draft of RateLimit fields, which clients read; later drafts have other fields.
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"ratelimit-limit", b"%d" % window.limit),
                    (b"ratelimit-remaining", b"%d" % window.remaining),
                    (b"ratelimit-reset", b"%d" % window.reset_seconds),
                ]
            return send(message)

        if window.allowed:
            await self._app(scope, receive, send_with_limit)
            return
        error = RateLimited(
            f"This client sends more requests than {setting_names()[f'rate_limit_{name}']} allows. Go on in "
            f"{window.reset_seconds} s.",
            retry_after_seconds=window.retry_after_seconds,
        )
        await errors.refuse(scope, receive, send_with_limit, error)

    def _limit_of(self, method: str, path: str) -> tuple[LimitName, str]:
        """Return the limit that counts a request, and what it counts apart."""
        if method not in _READING:
            if method == "POST" and (path in _MODEL_CALLS or _BENCHMARK.fullmatch(path) or _REPLAY.fullmatch(path)):
                return "model_calls", ""
            if path.startswith("/api-keys"):
                return "keys", ""
        if path not in self._spelled_out:
            first = path.split("/", 2)[1] if path.startswith("/") else _OTHER
            path = f"/{first}/" if first in self._first_parts else _OTHER
        return "requests", f"{method if method in _METHODS else _OTHER} {path}"


def failed_token_limit(limits: RateLimits) -> Callable[[str], Awaitable[float | None]]:
    """Return what counts a wrong token of an address: it gives the seconds to wait if there were too many, else None.

    Counted in this process alone, so that whether a token is right never depends on a store.
    """

    async def count(address: str) -> float | None:
        return (await limits.hit("failures", _network_of(address))).retry_after_seconds

    return count


def _who(client: Client) -> str:
    return f"{client.who} {_network_of(client.address)}"


@lru_cache(maxsize=1024)
def _network_of(address: str) -> str:
    """Return the address, of IPv6 the /64 that it is in: whoever has one address of it has all of them."""
    if ":" not in address:
        return address
    whole = ipaddress.IPv6Address(address.partition("%")[0])
    if whole.ipv4_mapped or whole.is_loopback:
        return str(whole.ipv4_mapped or whole)
    return str(ipaddress.IPv6Network((whole, 64), strict=False))
