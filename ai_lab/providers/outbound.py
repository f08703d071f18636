"""Where this server connects to: never to what only it can reach, unless that is known to be the user's own.

An address counts by what is connected to, not by how it is written: a name by what it resolves to, and an IPv6 address
that stands for an IPv4 one by that. Rules of the ranges: IANA's registries of special-purpose addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from ai_lab.errors import AddressRefused, InvalidSettings

if TYPE_CHECKING:
    import httpx

#: Returns the addresses of a host; raises ``OSError`` where it has none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Narrower than any standard, so that all programs that read an address see the same host in it.
_PLAIN_URL = re.compile(
    r"(https?)://([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?(/[!-~]*)?", re.IGNORECASE
)
_PLAIN_NAME = re.compile(r"[a-z0-9._-]{1,253}", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Nobody's model service, and several clouds hand out a machine's own credentials at one of them.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "fd00:ec2::/32",
        "fd00:42::42/128",
        "fd20:ce::254/128",
    )
)
_FORBIDDEN = (
    "Nothing is ever sent to this address: it is link-local, multicast, reserved, or a cloud's metadata service."
)
_PRIVATE = (
    "This address is on this machine or in a private network. If the server there is your own, name its host or "
    "network in AI_LAB_ALLOWED_ADDRESSES and start AI Lab again."
)
_ELSEWHERE = "localhost does not mean this machine here. Correct the hosts file, or write 127.0.0.1."


class Place(NamedTuple):
    """What an address names; the host in lower case and without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def is_localhost(self) -> bool:
        """Whether the name itself promises this machine."""
        name = self.host.rstrip(".")
        return name == "localhost" or name.endswith(".localhost")


def place_of(url: str) -> Place:
    """Return what a plain http(s) address names.

    Raises:
        AddressRefused: it is none: another scheme, a user name, a query, or anything that programs read differently.
    """
    found = _PLAIN_URL.fullmatch(url)
    if found is None:
        raise AddressRefused(
            "This is no plain address. Write it like https://host:port/path, without user name, query or blanks.",
            param="base_url",
        )
    scheme, host, port = found[1].lower(), found[2].lower().strip("[]"), found[3]
    number = int(port) if port else _DEFAULT_PORTS[scheme]
    if not 1 <= number <= 65535:  # noqa: PLR2004  # the ports of TCP
        raise AddressRefused("An address has a port from 1 to 65535.", param="base_url")
    return Place(scheme, host, number)


class Outbound:
    """The rules, and connections that keep to them.

    Args:
        allowed: hosts and networks of the user's own, see ``AI_LAB_ALLOWED_ADDRESSES``.
        resolve: returns the addresses of a name; default: the system's resolver.

    Raises:
        InvalidSettings: one of ``allowed`` is neither a host nor a network.
    """

    def __init__(self, allowed: Sequence[str] = (), *, resolve: Resolve | None = None) -> None:
        self._resolve = resolve or _resolved
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in allowed:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if not _PLAIN_NAME.fullmatch(entry):
                    raise InvalidSettings(
                        f"AI_LAB_ALLOWED_ADDRESSES: {entry!r} is neither a host nor a network. Write gpu.lan, 10.0.0.5 "
                        "or 192.168.0.0/16, without http:// and port."
                    ) from None
                self._names.add(_bare(entry))

    def check(self, url: str, *, is_local: bool = False) -> None:
        """See that ``url`` is plain and does not itself say where nothing may go; nothing is resolved.

        Args:
            url: an http(s) address.
            is_local: it may lie on this machine or in a private network, as servers of the user's own do.

        Raises:
            AddressRefused: it may not be used; the text says why and never repeats it.
        """
        place = place_of(url)
        vet = self.rule(place, is_local=is_local)
        for address in ["127.0.0.1"] if place.is_localhost else _literal(place.host):
            vet(address)

    def vet(self, address: str, *, is_local: bool) -> None:
        """See that a numeric address may be connected to.

        Raises:
            AddressRefused: it may not.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        kind = _kind(ip)
        if kind == "forbidden":
            raise AddressRefused(_FORBIDDEN, param="base_url")
        if kind == "private" and not is_local and not self._is_in_allowed_network(ip):
            raise AddressRefused(_PRIVATE, param="base_url")

    def rule(self, place: Place, *, is_local: bool) -> Callable[[str], None]:
        """Return what ``vet`` is for the addresses of one host; localhost must be this machine."""
        may_be_private = is_local or self._is_named(place.host)

        def vet(address: str) -> None:
            self.vet(address, is_local=may_be_private)
            if place.is_localhost and not is_loopback(address):
                raise AddressRefused(_ELSEWHERE, param="base_url")

        return vet

    async def addresses(self, place: Place, *, is_local: bool) -> list[str]:
        """Return the addresses of a host that may be connected to, those of IPv4 first: few servers have only IPv6.

        Raises:
            AddressRefused: it has none that may.
            OSError: it has none at all.
        """
        vet = self.rule(place, is_local=is_local)
        found = _literal(place.host) or await self._resolve(place.host, place.port)
        vetted: list[str] = []
        refused: AddressRefused | None = None
        for address in dict.fromkeys(found):
            try:
                vet(address)
            except AddressRefused as error:
                refused = error
            else:
                vetted.append(address)
        if not vetted:
            raise refused or OSError("the name has no address")
        return sorted(vetted, key=lambda address: ":" in address)

    def transport(self, url: str, *, is_local: bool = False) -> httpx.AsyncBaseTransport:
        """Return connections to the host of ``url`` and to no other, for ``httpx.AsyncClient(transport=…)``.

        A request raises ``AddressRefused`` where it may not go there. Certificates are checked against the host's
        name. Proxies of the environment are used for other machines; they are trusted, and the address behind them is
        vetted as far as its name is known here.
        """
        from ai_lab.providers.outbound_transport import VettedRoute, VettedTransport  # noqa: PLC0415 - loads httpx

        return VettedTransport(VettedRoute(self, url, is_local=is_local))

    def stream_transport(self, url: str, *, is_local: bool = False) -> httpx.AsyncBaseTransport:
        """Return the same for a service that sends long answers piece by piece."""
        from ai_lab.providers.outbound_transport import VettedRoute, VettedTransport  # noqa: PLC0415 - loads httpx

        route = VettedRoute(self, url, is_local=is_local)
        if route.proxy:
            return VettedTransport(route)
        from ai_lab.providers.stream_transport import StreamTransport  # noqa: PLC0415 - loads aiohttp

        return StreamTransport(route)

    def _is_named(self, host: str) -> bool:
        return _bare(host) in self._names

    def _is_in_allowed_network(self, ip: _Address) -> bool:
        return any(one in network for one in (ip, *_embedded(ip)) for network in self._networks)


def is_loopback(address: str) -> bool:
    """Return whether a numeric address cannot leave the machine."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return all(one.is_loopback or one.is_unspecified for one in _embedded(ip) or (ip,))


def is_readable_on_the_way(url: str) -> bool:
    """Return whether what is sent to a plain address leaves this machine unencrypted."""
    place = place_of(url)
    is_here = place.is_localhost or any(map(is_loopback, _literal(place.host)))
    return place.scheme == "http" and not is_here


def _kind(ip: _Address) -> Literal["public", "private", "forbidden"]:
    kinds = {_plain_kind(one) for one in _embedded(ip) or (ip,)}
    return "forbidden" if "forbidden" in kinds else "private" if "private" in kinds else "public"


def _plain_kind(ip: _Address) -> Literal["public", "private", "forbidden"]:
    if ip.is_loopback or ip.is_unspecified:  # the system takes "unspecified" for this machine
        return "private"
    if ip.is_reserved or any(ip in network for network in _NEVER):
        return "forbidden"
    return "public" if ip.is_global else "private"


def _embedded(ip: _Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses that an IPv6 address leads to: mapped, NAT64, 6to4, Teredo."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    if ip.ipv4_mapped:
        return (ip.ipv4_mapped,)
    if ip in _NAT64:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF),)
    if ip.sixtofour:
        return (ip.sixtofour,)
    return ip.teredo or ()


def _literal(host: str) -> list[str]:
    """Return the address that ``host`` spells, by the parser that connects: it knows 127.1, 0x7f.1 and 2130706433.

    With a dot at its end that parser takes it for a name; a proxy may not.
    """
    host = host.rstrip(".") or host
    try:
        return _hosts(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return []


async def _resolved(host: str, port: int) -> list[str]:
    try:
        return _hosts(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "this is no name of a host") from None


def _hosts(found: Sequence[tuple[object, object, int, str, tuple[object, ...]]]) -> list[str]:
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _bare(host: str) -> str:
    return host.lower().rstrip(".")
