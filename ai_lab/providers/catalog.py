"""Which services there are: a row each. Settings add OpenAI-compatible servers, installed packages add providers.

Adapters are imported when a lab is opened and only as far as they are used.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from ai_lab.errors import InvalidSettings
from ai_lab.providers.types import Provider
from ai_lab.settings import ServerEntry, Settings, check_base_url

ENTRY_POINT_GROUP = "ai_lab.providers"
_NAME_LENGTH = 64
#: The weights that ship for a first start.
SHIPPED_MODEL = "SmolLM2-135M-Instruct.Q4_1"


@dataclass(frozen=True)
class Service:
    """A row: the name before the slash in ``provider/model``, a title for people, and how its provider is made."""

    name: str
    title: str
    build: Callable[[Settings], Provider]
    address: Callable[[Settings], str | None] = lambda _settings: None  # None: inside this machine


def _embedded(settings: Settings) -> Provider:
    from ai_lab.providers.embedded import Embedded  # noqa: PLC0415 - only a lab that is opened needs it

    return Embedded(
        "embedded",
        models_dir=settings.models_path(),
        context_tokens=settings.context_tokens,
        slots=settings.engine_slots,
        threads=settings.engine_threads,
        gpu_layers=settings.engine_gpu_layers,
        idle_seconds=settings.engine_idle_seconds,
        timeout_seconds=settings.request_timeout_seconds,
        cuda_visible_devices=settings.cuda_visible_devices,
    )


def _ollama(settings: Settings) -> Provider:
    from ai_lab.providers.ollama import Ollama  # noqa: PLC0415 - as above

    return Ollama(
        "ollama",
        settings.ollama_host,
        context_tokens=settings.context_tokens,
        timeout_seconds=settings.request_timeout_seconds,
    )


def _echo(_settings: Settings) -> Provider:
    from ai_lab.providers.echo import Echo  # noqa: PLC0415 - as above

    return Echo()


#: In the order in which a model name without a provider is looked for; servers of the user come after Ollama.
SERVICES = (
    Service("ollama", "Ollama", _ollama, lambda settings: settings.ollama_host),
    Service("embedded", "Embedded engine (llama.cpp)", _embedded),
    Service("echo", "Echo (answers with the question)", _echo),
)


def services(settings: Settings) -> list[Service]:
    """Return all rows: the built-in ones, the user's servers, and those of installed packages.

    Raises:
        InvalidSettings: two rows have the same name, or a server's address cannot be used.
    """
    rows = [SERVICES[0], *(_server_row(name, entry) for name, entry in settings.servers.items()), *SERVICES[1:]]
    rows += [Service(entry.name, entry.name, entry.load()) for entry in entry_points(group=ENTRY_POINT_GROUP)]
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSettings(f"AI_LAB_SERVERS: another provider is called {name!r} already.")
    return rows


def is_on_this_machine(address: str | None) -> bool:
    """Return whether an address cannot leave the machine; a name other than localhost may mean anything."""
    if address is None:
        return True
    host = urlsplit(address if "//" in address else f"//{address}").hostname or "127.0.0.1"
    try:
        return ipaddress.ip_address(host).is_loopback or host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    except ValueError:
        return host == "localhost"


def _server_row(name: str, entry: ServerEntry) -> Service:
    if not name or "/" in name or len(name) > _NAME_LENGTH:
        raise InvalidSettings(
            f"AI_LAB_SERVERS: {name!r} cannot be a provider's name: 1 to {_NAME_LENGTH} characters without a slash."
        )
    base_url = check_base_url(entry.base_url)

    def build(settings: Settings) -> Provider:
        from ai_lab.providers.openai_compatible import OpenAICompatible  # noqa: PLC0415 - as above

        options: dict[str, Any] = {
            "context_tokens": entry.context_tokens,
            "timeout_seconds": settings.request_timeout_seconds,
        }
        key = entry.api_key
        return OpenAICompatible(name, base_url, api_key=key.get_secret_value if key else None, **options)

    return Service(name, name, build, lambda _settings: base_url)
