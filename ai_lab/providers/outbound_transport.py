"""Connections of httpx that go only where ``Outbound`` lets them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING

import httpx

from ai_lab.errors import AddressRefused, InvalidSettings
from ai_lab.providers.http_client import KEEPALIVE_SECONDS
from ai_lab.providers.outbound import Outbound, Place, is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

#: Vetted once, an address stays right: only a server that moves is found late.
_KEPT_SECONDS = 60.0
#: A host with many addresses must not make a request wait for all of them.
_MOST_TRIED = 4
_PORTS = {"http": 80, "https": 443}


class VettedRoute:
    """Where requests to one origin may go: its addresses, vetted once a minute.

    Attributes:
        place: the origin.
        proxy: of the environment, that makes the connections; None: they are made here.
    """

    def __init__(self, outbound: Outbound, url: str, *, is_local: bool) -> None:
        self.place = _place(httpx.URL(url))
        self.proxy = _proxy(self.place)
        self._outbound = outbound
        self._is_local = is_local
        self._vetted: Sequence[str] = ()
        self._vetted_at = float("-inf")

    async def addresses(self, request: httpx.Request) -> Sequence[str]:
        """Return the addresses for a request, the one that worked last first. Raises ``AddressRefused``."""
        if _place(request.url) != self.place:
            raise AddressRefused("A connection to one server was asked to serve another. Nothing was sent.")
        if time.monotonic() - self._vetted_at < _KEPT_SECONDS:
            return self._vetted
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("connect")):
                self._vetted = await self._outbound.addresses(self.place, is_local=self._is_local)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("the name was not resolved in time") from error
        except OSError as error:
            if not self.proxy:  # a proxy may know names that are unknown here
                raise httpx.ConnectError("the name cannot be resolved") from error
            self._vetted = ()
        self._vetted_at = time.monotonic()
        return self._vetted

    async def send(self, request: httpx.Request, send: Callable[[str], Awaitable[httpx.Response]]) -> httpx.Response:
        """Send a request to the first of its addresses that takes a connection."""
        failure: httpx.TransportError | None = None
        addresses = await self.addresses(request)
        for address in addresses[:_MOST_TRIED]:
            try:
                response = await send(address)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = failure or error
            else:
                if address != addresses[0]:
                    self._vetted = [address, *(one for one in addresses if one != address)]
                return response
        self._vetted_at = float("-inf")
        raise failure or httpx.ConnectError("no address")


class VettedTransport(httpx.AsyncHTTPTransport):
    """Resolves a host itself and connects to an address that was vetted, so that no later answer can change it.

    It serves one origin. That a request for another one fails is no rule of its own; it is what keeps a key at home
    should anything above it err.
    """

    def __init__(self, route: VettedRoute) -> None:
        self._route = route
        # For plain http the certificates are not loaded: that takes 20 ms.
        is_plain = route.place.scheme == "http" and not (route.proxy or "").startswith("https:")
        try:
            super().__init__(
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True,
                limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
                proxy=route.proxy,
            )
        except (ImportError, ValueError, httpx.InvalidURL):
            raise InvalidSettings(
                "The proxy that the environment names cannot be used. Name an http:// or https:// proxy in HTTP_PROXY "
                "and HTTPS_PROXY, or list the host in NO_PROXY."
            ) from None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises ``AddressRefused`` where it may not go."""
        send = super().handle_async_request
        if self._route.proxy:
            await self._route.addresses(request)
            return await send(request)
        host = self._route.place.host
        return await self._route.send(request, lambda address: send(_directed(request, host, address)))


def _directed(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """Return the request with a numeric address; its ``Host`` header and the name in the certificate stay."""
    extensions = dict(request.extensions)
    if address != host:
        extensions["sni_hostname"] = host
    url = request.url.copy_with(host=address)
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


def _place(url: httpx.URL) -> Place:
    host = url.raw_host.decode("ascii").lower()
    return Place(url.scheme, host, url.port or _PORTS.get(url.scheme, 0))


def _proxy(place: Place) -> str | None:
    """Return the proxy of the environment, none for what promises to be this machine."""
    with contextlib.suppress(ValueError):
        if is_loopback(place.host):
            return None
    if place.is_localhost or urllib.request.proxy_bypass(f"{place.host}:{place.port}"):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(place.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
