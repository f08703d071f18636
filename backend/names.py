"""The names that this server goes by, and the web pages that may use it: what Host and Origin are held against."""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache

from ai_lab.access import is_loopback
from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#@\s]+)")
_MAPPED_BITS = 96  # of an IPv6 address before the IPv4 one in it: RFC 4291, 2.5.5.2
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_NO_PAGE_OF_OTHERS = {"same-origin", "none"}  # "none": typed or bookmarked


class Names:
    """Decides by Host and Origin, without a look at the network.

    On loopback the server is known as localhost and by its loopback addresses: any other name in a Host was made to
    point here (DNS rebinding). Beyond it a token is required, and then addresses are fine too, for nobody can make an
    address point elsewhere; names have to be the machine's or listed. Ports do not matter.

    Raises:
        InvalidSettings: an entry of AI_LAB_ALLOWED_HOSTS or AI_LAB_CORS_ORIGINS is none.
    """

    def __init__(self, settings: Settings) -> None:
        self._allows_addresses = not is_loopback(settings.api_host)
        self._names = {"localhost"} | {_plain(name) for name in settings.allowed_hosts}
        if not _is_address(settings.api_host):
            self._names.add(_plain(settings.api_host))
        if self._allows_addresses:
            self._names.add(_plain(socket.gethostname()))
        for name in settings.allowed_hosts:
            if not _NAME.fullmatch(name):
                raise InvalidSettings(
                    "AI_LAB_ALLOWED_HOSTS: write names alone, without scheme, port or *: lab.example.org, 10.0.0.5"
                )
        self.origins = frozenset(origin.lower() for origin in settings.cors_origins)
        for origin in self.origins:
            match = _ORIGIN.fullmatch(origin)
            if not match or not _HOST.fullmatch(match["host"]):
                raise InvalidSettings(
                    "AI_LAB_CORS_ORIGINS: write each page's address as scheme and host, without a path; * is not "
                    "taken, for it would let every page in: https://lab.example.org"
                )

    def know(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = _plain(match["name"])
        if name in self._names:
            return True
        return _is_address(name) and (self._allows_addresses or is_loopback(name))

    def admit_page(self, origin: str | None, fetch_site: str | None, host: str | None) -> bool:
        """Return whether the page that sends a request may change something here.

        Args:
            origin: of the page, as browsers say it; programs say none.
            fetch_site: the header Sec-Fetch-Site.
            host: that the request was sent to.
        """
        if origin is not None and origin.lower() in self.origins:
            return True
        if fetch_site is not None and fetch_site.lower() not in _NO_PAGE_OF_OTHERS:
            return False
        return origin is None or (host is not None and _is_same(origin, host))


def check_proxies(settings: Settings) -> list[str]:
    """Return the networks of the proxies whose word is taken for who asks, those of IPv4 in IPv6's spelling too.

    That is how a socket that listens on ``::`` names them.

    Raises:
        InvalidSettings: one is neither an address nor a network.
    """
    networks: list[str] = []
    for proxy in settings.trusted_proxies:
        try:
            network = ipaddress.ip_network(proxy)
        except ValueError:
            raise InvalidSettings(
                "AI_LAB_TRUSTED_PROXIES: write addresses or networks: 10.0.0.2, 10.1.0.0/16. Names and * are not taken."
            ) from None
        networks.append(str(network))
        if isinstance(network, ipaddress.IPv4Network):
            networks.append(f"::ffff:{network.network_address}/{_MAPPED_BITS + network.prefixlen}")
    return networks


def _is_same(origin: str, host: str) -> bool:
    """Compare host and port. The scheme is left out: a proxy that ends TLS does not always tell it."""
    match, mine = _ORIGIN.fullmatch(origin.lower()), _HOST.fullmatch(host)
    theirs = _HOST.fullmatch(match["host"]) if match else None
    if not (match and mine and theirs) or _plain(mine["name"]) != _plain(theirs["name"]):
        return False
    default = _DEFAULT_PORTS[match["scheme"]]
    return (mine["port"] or default) == (theirs["port"] or default)


@lru_cache(256)  # the same few names come with every request
def _plain(name: str) -> str:
    """Return a name or address in its one spelling."""
    name = name.strip("[]").lower().removesuffix(".")
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        return name


@lru_cache(256)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
