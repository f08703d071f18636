"""Keys for tests of providers: bound to one address each, as those of the vault are."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from ai_lab.errors import ApiKeyUnusable, LabError
from ai_lab.providers.known_services import known_services


def new_key() -> str:
    return f"sk-CANARY{secrets.token_hex(16)}"


@dataclass
class KeysInMemory:
    """``keys`` are secret and base URL by name; ``failure`` is raised in place of every answer."""

    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    failure: LabError | None = None
    #: Services whose key was entered for another address than ``base_url`` says now.
    bound_to: dict[str, str] = field(default_factory=dict)
    #: Named in the settings, which tell where they are.
    configured: frozenset[str] = frozenset({"ollama"})

    def add(self, name: str, base_url: str) -> str:
        self.keys[name] = new_key(), base_url
        return self.keys[name][0]

    async def secret_for(self, service: str, base_url: str) -> str | None:
        self.asked.append((service, base_url))
        if self.failure:
            raise self.failure
        if service not in self.keys:
            return None
        secret, own = self.keys[service]
        if base_url != self.bound_to.get(service, own):
            raise ApiKeyUnusable(f"The key of {service} is for another address. Enter it again.")
        return secret

    def has_key(self, service: str) -> bool:
        return service in self.keys

    def custom_services(self) -> dict[str, str]:
        return {
            name: url
            for name, (_, url) in self.keys.items()
            if name not in self.configured and (name not in known_services() or url != known_services()[name].base_url)
        }
