"""Where a target is and what it speaks, in a form that goes through a pipe."""

from __future__ import annotations

import socket
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ai_lab.benchmarks.plan import EngineOptions
from ai_lab.providers.catalog import is_on_this_machine

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Address(BaseModel):
    """What an arm is, resolved: everything that opening it takes besides the settings.

    ``base_url`` is None for the benchmark's own engine and for providers, which are told by ``provider``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["auto", "ollama", "openai", "engine", "provider"]
    model: str
    base_url: str | None = Field(default=None, repr=False)  # may hold a password
    is_own: bool = True  # and may lie in a private network
    api_key: SecretStr | None = None
    endpoint: Literal["chat", "generate"] = "chat"
    engine: EngineOptions | None = None
    provider: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values with the key in plain text: for the pipe to the measuring process, never for a file."""
        values = self.model_dump(mode="json")
        values["api_key"] = self.api_key.get_secret_value() if self.api_key else None
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Address:
        """Return the address that ``to_dict`` described."""
        return cls.model_validate(values)

    @property
    def is_local(self) -> bool:
        """Whether the target is on this machine."""
        return is_here(self.base_url)


def bare_address(url: str) -> str:
    """Return scheme, host and port of ``url``: what the rules for outbound connections go by."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def target_key(address: Address) -> str:
    """Return what two runs must not share at the same time: this machine, or a server elsewhere."""
    if address.base_url is None or is_here(address.base_url):
        return f"host:{socket.gethostname()}"
    url = urlsplit(address.base_url)
    return f"{url.scheme}://{url.hostname}:{url.port or _DEFAULT_PORTS.get(url.scheme, 0)}"


def is_here(url: str | None) -> bool:
    """Return whether ``url`` is on this machine: loopback, or its own name or one of its own addresses."""
    if is_on_this_machine(url):
        return True
    host = (urlsplit(url or "").hostname or "").lower()
    names = {"ip6-localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    addresses = {one.address.partition("%")[0] for each in psutil.net_if_addrs().values() for one in each}
    return host.endswith(".localhost") or host in names | addresses
