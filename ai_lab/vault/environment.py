"""Keys that the environment, ``.env`` or AI_LAB_SERVERS hold: they are used from there, and stored nowhere."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ai_lab.errors import AddressRefused, ApiKeyRefused
from ai_lab.providers.known_services import KnownService, known_services, origin_of
from ai_lab.settings import Settings
from ai_lab.vault.addresses import Addresses
from ai_lab.vault.cipher import hint_of
from ai_lab.vault.formats import judge
from ai_lab.vault.schemas import KeyInfo

#: The setting that may hold keys of the user's own servers; its name stands for their label.
SERVERS = "AI_LAB_SERVERS"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EnvironmentKey:
    """A key that is not stored. It goes to ``origins`` and nowhere else."""

    service_name: str
    name: str
    secret: str = field(repr=False)
    base_url: str
    origins: frozenset[str]

    def info(self) -> KeyInfo:
        """Return what may be shown of it; its name in the environment stands for a label."""
        return KeyInfo(
            id=None,
            service_name=self.service_name,
            label=self.name,
            source="environment",
            environment_name=self.name,
            base_url=self.base_url,
            state="active",
            hint=hint_of(self.secret),
        )


def keys_of_environment(settings: Settings, addresses: Addresses) -> dict[str, list[EnvironmentKey]]:
    """Return the keys by service; the first of a service is the one that is used."""
    found: dict[str, list[EnvironmentKey]] = {}
    for service in known_services().values():
        if addresses.known(service.name) is None:
            continue  # a server of the user's own has this name
        for name in service.environment_names:
            configured = addresses.configured(service.name)  # OLLAMA_HOST
            base_url = configured or settings.named(service.address_name(name)) or service.base_url
            if (secret := settings.named(name)) and base_url:
                _add(found, _key(service, service.name, name, secret, base_url))
    for name, entry in settings.servers.items():
        if entry.api_key:
            secret = entry.api_key.get_secret_value()
            _add(found, _key(None, name.lower(), SERVERS, secret, entry.base_url.rstrip("/")))
    return found


def _key(
    service: KnownService | None, service_name: str, name: str, secret: str, base_url: str
) -> EnvironmentKey | None:
    """Return a key as it is used; None, with a line in the log, for what can never be one."""
    try:
        plain = judge(service, secret, force=True, has_own_address=service is None).secret
        is_own = service is not None and service.base_url is not None and service.is_own(base_url)
        origins = frozenset({origin_of(base_url), *(service.origins if service and is_own else ())})
    except (ApiKeyRefused, AddressRefused) as error:
        _log.warning("a key of the environment is left out", extra={"environment_name": name, "reason": error.detail})
        return None
    return EnvironmentKey(service_name, name, plain, base_url, origins)


def _add(found: dict[str, list[EnvironmentKey]], key: EnvironmentKey | None) -> None:
    """Add a key unless another name holds the same one."""
    if key:
        keys = found.setdefault(key.service_name, [])
        if all(one.secret != key.secret for one in keys):
            keys.append(key)
