"""The one table of model services: addresses, names in the environment, what their keys look like, how one is tested.

The rows stand in ``services.json``, each with the date and the source of what is known; code holds no key pattern.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ai_lab.providers.outbound import place_of

_DATA = Path(__file__).with_name("services.json")
#: How the answer to a check is to be read; ``plain`` goes by the HTTP status alone.
Reading = Literal["plain", "openai", "anthropic", "google", "cohere", "huggingface", "openrouter"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What one kind of key looked like at a date.

    Attributes:
        name: of the kind, for people.
        prefix: what all of that kind begin with; empty where there is nothing.
        pattern: a regular expression for the whole key, without nested repetition: it takes linear time.
        warning: what is to be said about every key of this kind.
    """

    name: str
    prefix: str
    pattern: str
    as_of: str
    source: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """The cheapest request that tells whether a key is good. It costs nothing and changes nothing.

    Attributes:
        url: of the check at the service's own address; None: ``path`` below the base URL.
        path: of the check below a base URL of the user's; None: such an address is taken for a custom
            OpenAI-compatible server.
        header: carries the key, after ``scheme``. Keys never stand in an address.
        headers: further headers.
        is_public_when_keyless: a 200 may not depend on the key, and counts only where the same request is refused
            without one.
    """

    method: Literal["GET", "POST"]
    url: str | None
    path: str | None
    header: str = "authorization"
    scheme: str = "Bearer "
    headers: tuple[tuple[str, str], ...] = ()
    reading: Reading = "plain"
    is_public_when_keyless: bool = False


@dataclass(frozen=True, slots=True)
class KnownService:
    """A service that AI Lab knows.

    Attributes:
        name: canonical, as it is stored; ``aliases`` are other names that people give it.
        base_url: where models are called; None: the user gives it.
        origins: further origins of the same service that its key may go to.
        adapter: which provider serves it: a name of ``catalog.ADAPTERS``, or "ollama".
        is_local: it usually runs on the user's own machine or network.
        as_of: when this was last compared with ``source``.
        unique_prefixes: only keys of this service begin with these.
        admin_prefixes: keys that manage an account and must not be used for calling models.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    base_url: str | None
    origins: tuple[str, ...]
    adapter: str
    is_local: bool
    needs_key: bool
    help_url: str | None
    environment_names: tuple[str, ...]
    endpoint_environment_name: str | None
    as_of: str
    source: str
    shapes: tuple[Shape, ...]
    unique_prefixes: tuple[str, ...]
    admin_prefixes: tuple[str, ...]
    key_hint: str
    check: Check

    def address_name(self, key_name: str) -> str:
        """Return the name in the environment of the address that the key called ``key_name`` there is for.

        A key that stands beside another address is a key of that server: the service itself must not get it.
        """
        return self.endpoint_environment_name or re.sub("(_API)?_(KEY|TOKEN)$", "_BASE_URL", key_name)

    def is_own(self, url: str) -> bool:
        """Return whether an address belongs to the service itself; raises ``AddressRefused`` where it is none."""
        own = ([origin_of(self.base_url)] if self.base_url else []) + list(self.origins)
        return origin_of(url) in own


#: How the key of a server is tested that is known by its address alone.
CUSTOM_CHECK = Check(method="GET", url=None, path="/models", is_public_when_keyless=True)


@functools.cache
def known_services() -> dict[str, KnownService]:
    """Return all rows by canonical name. The dictionary is shared: do not change it."""
    return {row["name"]: _service(row) for row in _data()["services"]}


@functools.cache
def placeholders() -> tuple[re.Pattern[str], ...]:
    """Return what stands for a key in examples, as patterns for the whole of it in lower case."""
    return tuple(re.compile(pattern) for pattern in _data()["placeholders"])


def canonical(name: str) -> str:
    """Return the name under which a service is stored: ``gemini`` is google. Unknown names stay, in lower case."""
    name = name.strip().lower()
    return _aliases().get(name, name)


def origin_of(url: str) -> str:
    """Return ``scheme://host:port`` in lower case, with default ports spelled out.

    Raises:
        AddressRefused: it is no plain http(s) address.
    """
    scheme, host, port = place_of(url)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@functools.cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_DATA.read_text(encoding="utf-8"))
    return data


@functools.cache
def _aliases() -> dict[str, str]:
    return {alias: service.name for service in known_services().values() for alias in service.aliases}


def _service(row: dict[str, Any]) -> KnownService:
    lists = ("aliases", "environment_names", "unique_prefixes", "admin_prefixes")
    check = {**row["check"], "headers": tuple(row["check"].get("headers", {}).items())}
    return KnownService(
        **{
            **row,
            **{name: tuple(row[name]) for name in lists},
            "origins": tuple(origin_of(url) for url in row["origins"]),
            "shapes": tuple(Shape(**shape) for shape in row["shapes"]),
            "check": Check(**check),
        }
    )
