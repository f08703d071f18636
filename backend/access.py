"""Who may come in: Host, Origin, token and content type of every request, before anything else sees it."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ai_lab.access import Client, Tokens
from ai_lab.errors import Forbidden, ForeignOrigin, LabError, RateLimited, Unauthorized, UnknownHost
from ai_lab.settings import Settings
from backend import errors
from backend.names import Names

#: Counts a wrong token of an address; returns the seconds that it has to wait if there were too many, else None.
OnFailure = Callable[[str], Awaitable[float | None]]

#: What needs no token: probes, which tell nothing but "alive" and "ready", and the page that takes the token.
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/login", "/login/login.js", "/login/login.css"})
#: What the token for metrics may read.
METRICS_PATHS = frozenset(
    {
        "/metrics",
        "/metrics/prometheus",
        "/metrics/history",
        "/metrics/series",
        "/performance/summary",
        "/health",
        "/health/detailed",
        "/health/live",
        "/health/ready",
    }
)
_PAGES = {"/", "/docs"}
_READING = {"GET", "HEAD", "OPTIONS"}
_JSON, _JSON_LINES = "application/json", "application/x-ndjson"
_LOOKED_AT = {
    b"host",
    b"origin",
    b"sec-fetch-site",
    b"authorization",
    b"x-api-key",
    b"cookie",
    b"content-type",
    b"content-length",
    b"transfer-encoding",
    b"accept",
}
_POLICY_VIOLATION = 1008  # RFC 6455, 7.4.1


@dataclass(frozen=True)
class Doors:
    """What the settings say about who may come in.

    Args:
        names: hosts and pages.
        tokens: None where none is needed.
        cookie_name: has the port, for cookies do not tell servers of one machine apart.
    """

    names: Names
    tokens: Tokens | None
    cookie_name: str

    @classmethod
    def of(cls, settings: Settings, tokens: Tokens | None) -> Doors:
        """Return the doors of a server with these settings.

        Raises:
            InvalidSettings: a list of names or pages has something else in it.
        """
        return cls(Names(settings), tokens, f"ai_lab_{settings.api_port}")


class AccessRules:
    """Lets a request in or answers it; plain ASGI. Tells the rest who it is: ``scope["state"]["client"]``.

    A wrong token counts against its address, but the right one is let in from a blocked address too: guessing one of
    256 bits is hopeless anyhow, and people behind one address shall not lock each other out.
    """

    def __init__(self, app: ASGIApp, doors: Doors, on_failure: OnFailure) -> None:
        self._app = app
        self._doors = doors
        self._on_failure = on_failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:  # a second one of a kind is joined, and then fits nothing
                text = value.decode("latin-1")
                headers[name] = f"{headers[name]}, {text}" if name in headers else text
        try:
            client = await self._admit(scope, headers)
        except (LabError, HTTPException) as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            elif isinstance(error, Unauthorized | RateLimited) and _is_visitor(scope, headers):
                # Browsers take the fragment along to where they are sent, and old cookies count as wrong tokens.
                await RedirectResponse("/login", 303)(scope, receive, send)
            else:
                await errors.refuse(scope, receive, send, error)
            return
        scope.setdefault("state", {})["client"] = client
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[bytes, str]) -> Client:
        host = headers.get(b"host")
        # No browser leaves the Host out; simple probes do, in HTTP/1.0.
        if host is not None and not self._doors.names.know(host):
            raise UnknownHost(
                "The Host header has a name that this server does not go by. If it is one of its names, add it to "
                "AI_LAB_ALLOWED_HOSTS and start the server again."
            )
        is_reading = scope["type"] == "http" and scope["method"] in _READING
        if not is_reading and not self._doors.names.admit_page(
            headers.get(b"origin"), headers.get(b"sec-fetch-site"), host
        ):
            raise ForeignOrigin(
                "A web page of another site may not do this. If it is a page of yours, add its address to "
                "AI_LAB_CORS_ORIGINS and start the server again."
            )
        client = await self._identify(scope, headers, is_reading=is_reading)
        if not is_reading:
            _check_content(scope, headers)
        return client

    async def _identify(self, scope: Scope, headers: dict[bytes, str], *, is_reading: bool) -> Client:
        address, tokens = address_of(scope), self._doors.tokens
        if tokens is None:
            return Client("local", address)
        if scope["path"] in OPEN_PATHS:
            return Client("anonymous", address)
        shown, cookie = _shown_token(headers), _cookie(headers, self._doors.cookie_name)
        if shown is None and cookie is not None and tokens.is_cookie(cookie):
            return Client("admin", address)
        allowed = tokens.scope_of(shown) if shown is not None else None
        if allowed == "metrics" and not (is_reading and scope["path"] in METRICS_PATHS):
            raise Forbidden("This token only reads metrics. Everything else takes the admin's token.")
        if allowed:
            return Client(allowed, address)
        if shown is None and cookie is None:
            raise Unauthorized(
                "This server wants a token, sent as 'Authorization: Bearer …'. The command ./ai-lab token says where "
                "it is; in a browser open /login."
            )
        raise await refused_token(self._on_failure, address)


async def refused_token(on_failure: OnFailure, address: str) -> LabError:
    """Count a wrong token and return what to answer."""
    wait_seconds = await on_failure(address)
    if wait_seconds is not None:
        return RateLimited(
            f"Too many wrong tokens came from this address. Try again in {math.ceil(wait_seconds)} s; the command "
            "./ai-lab token says where the right one is.",
            retry_after_seconds=wait_seconds,
        )
    return Unauthorized("This is not the token of this server. The command ./ai-lab token says where that is.")


def address_of(scope: Scope) -> str:
    """Return the address that a request comes from, in one spelling; a proxy may have passed on any text as such."""
    return _in_one_spelling((scope.get("client") or ("",))[0])


@lru_cache(maxsize=1024)
def _in_one_spelling(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "unknown"
    return (getattr(address, "ipv4_mapped", None) or address).compressed


def _shown_token(headers: dict[bytes, str]) -> str | None:
    """Return the token of a program; other schemes, as a proxy's own Basic, say nothing to us."""
    scheme, _, credentials = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get(b"x-api-key")


def _cookie(headers: dict[bytes, str], wanted: str) -> str | None:
    for part in headers.get(b"cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted:
            return value
    return None


def _check_content(scope: Scope, headers: dict[bytes, str]) -> None:
    """Refuse a body that is not declared as JSON: a form of any web page can send those without being asked."""
    if scope["type"] != "http" or (headers.get(b"content-length", "0") == "0" and b"transfer-encoding" not in headers):
        return
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON or (kind.startswith("application/") and kind.endswith("+json")):
        return
    if kind != _JSON_LINES or not scope["path"].startswith("/import/"):
        raise HTTPException(415, f"Send {_JSON}, and say so in the header Content-Type.")


def _is_visitor(scope: Scope, headers: dict[bytes, str]) -> bool:
    return scope["method"] == "GET" and scope["path"] in _PAGES and headers.get(b"accept", "").startswith("text/html")
