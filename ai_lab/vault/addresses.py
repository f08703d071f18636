"""Where the key of a service goes: its own address, the one that settings name, or one that the user gave."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ai_lab.errors import AddressRefused, InvalidRequest, ServiceNotFound
from ai_lab.providers.known_services import KnownService, canonical, known_services, origin_of
from ai_lab.providers.ollama_address import ollama_address
from ai_lab.providers.outbound import Outbound
from ai_lab.settings import Settings
from ai_lab.vault.repository import KeyRow
from ai_lab.vault.schemas import KeyState

#: Providers without a key, and words that stand in the API's addresses where the name of a service does.
RESERVED = frozenset(
    {"embedded", "embedder", "echo", "rotate", "rotation", "rekey", "audit", "import", "status", "reset", "supported"}
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a key is bound to. ``base_url`` is None where that is the service's own address."""

    service_name: str
    known: KnownService | None
    base_url: str | None
    origin: str

    @property
    def url(self) -> str:
        """Return where models are called."""
        return self.base_url or (self.known.base_url if self.known else None) or self.origin


class Addresses:
    """Knows the services of an installation. Names are compared in lower case; settings win over known services."""

    def __init__(self, settings: Settings, outbound: Outbound) -> None:
        self._outbound = outbound
        self._settings = settings
        try:
            self._ollama: str | None = ollama_address(settings.ollama_host)
        except ValueError:  # its provider says what is wrong with it
            self._ollama = None
        self._servers = {name.lower(): entry.base_url.rstrip("/") for name, entry in settings.servers.items()}

    def name_of(self, given: str) -> str:
        """Return the name under which the keys of a service are stored."""
        name = given.strip().lower()
        return name if name in self._servers else canonical(name)

    def known(self, service_name: str) -> KnownService | None:
        """Return the row of a known service; a server of AI_LAB_SERVERS is none, whatever its name."""
        return None if service_name in self._servers else known_services().get(service_name)

    def configured(self, service_name: str) -> str | None:
        """Return the address that settings give a service of the user's own: AI_LAB_SERVERS or OLLAMA_HOST."""
        if service_name in self._servers:
            return self._servers[service_name]
        return self._ollama if service_name == "ollama" else None

    def is_local(self, service_name: str) -> bool:
        """Return whether the service may lie on this machine or in a private network."""
        return self.configured(service_name) is not None

    def for_storing(self, service_name: str, base_url: str | None, stored: KeyRow | None = None) -> Address:
        """Return where a key that is stored or tested goes.

        Args:
            service_name: as ``name_of`` returns it.
            base_url: what the user gave.
            stored: the key that is replaced; its address stays where none was given.

        Raises:
            ServiceNotFound: nobody knows the service, and no address was given.
            InvalidRequest: the name is reserved, the address is missing, or not the one that settings give.
            AddressRefused: nothing is sent there.
        """
        if service_name in RESERVED:
            raise InvalidRequest(f"No key can be stored under the name {service_name!r}.", param="service_name")
        known, configured = self.known(service_name), self.configured(service_name)
        if configured:
            if base_url and origin_of(base_url) != origin_of(configured):
                name = "OLLAMA_HOST" if service_name == "ollama" else "AI_LAB_SERVERS"
                raise InvalidRequest(
                    f"The address of {service_name!r} is set by {name}: change it there, or leave base_url out.",
                    param="base_url",
                )
            return Address(service_name, known, configured, origin_of(configured))
        base_url = base_url or (stored.base_url if stored else None) or self._endpoint(known)
        if base_url:
            self._outbound.check(base_url, is_local=False)
            origin = origin_of(base_url)
            own = origin_of(known.base_url) if known and known.base_url else None
            return Address(service_name, known, None if origin == own else base_url.rstrip("/"), origin)
        if known is None:
            raise self.not_found(service_name)
        if known.base_url is None:
            raise InvalidRequest(
                f"{known.title} has an address for each customer: give the one of your resource as base_url "
                "(--base-url).",
                param="base_url",
            )
        return Address(service_name, known, None, origin_of(known.base_url))

    def remarks(self, address: Address, given_url: str | None) -> list[str]:
        """Return what is to be said of an address that the user did not give, and may not expect."""
        is_expected = given_url or not (address.known and address.known.base_url and address.base_url)
        if is_expected or self.is_local(address.service_name):
            return []
        return [f"It goes to {address.base_url}, as the key before it did; give base_url for another address."]

    def of_row(self, row: KeyRow) -> Address:
        """Return where a stored key goes."""
        base_url = self.configured(row.service_name) or row.base_url
        return Address(row.service_name, self.known(row.service_name), base_url, row.base_origin)

    def state_of(self, row: KeyRow) -> KeyState:
        """Return the state of a stored key as settings are now; ``active``: it is bound to its service's address.

        ``needs_reentry``: settings, or a new version of AI Lab, give the service another address. Nothing is erased
        for that: with the address of before the key is usable again. ``tampered``: the row contradicts itself.
        """
        if row.state != "active":
            return row.state
        known = self.known(row.service_name)
        url = self.configured(row.service_name) or row.base_url or (known.base_url if known else None)
        try:
            if row.base_url and origin_of(row.base_url) != row.base_origin:
                return "tampered"
            return "active" if url and origin_of(url) == row.base_origin else "needs_reentry"
        except AddressRefused:
            return "tampered"

    def may_go(self, row: KeyRow, base_url: str) -> bool:
        """Return whether the key of a row may be sent to ``base_url``."""
        origin = origin_of(base_url)
        if origin == row.base_origin:
            return True
        known = self.known(row.service_name)
        return known is not None and row.base_url is None and origin in known.origins

    def not_found(self, service_name: str) -> ServiceNotFound:
        """Return the error for a name that nobody knows."""
        near = difflib.get_close_matches(service_name, [*known_services(), *self._servers], n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        return ServiceNotFound(
            f"No service is called {service_name!r}. {hint}To store a key of a server of your own, give its base_url "
            "(--base-url).",
            near,
        )

    def _endpoint(self, known: KnownService | None) -> str | None:
        name = known.endpoint_environment_name if known else None
        return self._settings.named(name) if name else None
