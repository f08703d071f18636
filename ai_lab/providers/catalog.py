"""Which services there are: a row each. Settings, installed packages and stored API keys add some.

Adapters are imported when a lab is opened and only as far as they are used.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from ai_lab.errors import AddressRefused, ApiKeyUnusable, InvalidSettings, VaultSealed
from ai_lab.providers.known_services import known_services
from ai_lab.providers.outbound import Outbound
from ai_lab.providers.types import Provider, Secrets
from ai_lab.settings import ServerEntry, Settings, check_base_url

ENTRY_POINT_GROUP = "ai_lab.providers"
_NAME_LENGTH = 64
#: The weights that ship for a first start.
SHIPPED_MODEL = "SmolLM2-135M-Instruct.Q4_1"


class NoSecrets:
    """Knows no key."""

    async def secret_for(self, service: str, base_url: str) -> str | None:
        """Return None."""
        return None

    def has_key(self, service: str) -> bool:
        """Return False."""
        return False

    def custom_services(self) -> dict[str, str]:
        """Return nothing."""
        return {}


@dataclass(frozen=True)
class Service:
    """A row: the name before the slash in ``provider/model``, a title for people, and how its provider is made.

    ``takes_key``: its requests carry a key of ``Secrets`` where there is one for its name.
    """

    name: str
    title: str
    build: Callable[[Settings, Secrets], Provider]
    address: Callable[[Settings], str | None] = lambda _settings: None  # None: inside this machine
    takes_key: bool = False


def _embedded(settings: Settings, _secrets: Secrets) -> Provider:
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


def _ollama(settings: Settings, secrets: Secrets) -> Provider:
    from ai_lab.providers.ollama import Ollama  # noqa: PLC0415 - as above

    async def key() -> str | None:
        try:
            return await _secret(secrets, "ollama", made.address)
        except (ApiKeyUnusable, VaultSealed):
            if not is_on_this_machine(made.address):
                raise
            return None  # an Ollama here wants no key; the one that there is must be for ollama.com

    made = Ollama(
        "ollama",
        settings.ollama_host,
        context_tokens=settings.context_tokens,
        timeout_seconds=settings.request_timeout_seconds,
        api_key=key,
    )
    return made


def _embedder(settings: Settings, _secrets: Secrets) -> Provider:
    from ai_lab.providers.embedder import Embedder  # noqa: PLC0415 - as above

    return Embedder(idle_seconds=settings.engine_idle_seconds)


def _echo(_settings: Settings, _secrets: Secrets) -> Provider:
    from ai_lab.providers.echo import Echo  # noqa: PLC0415 - as above

    return Echo()


def _openai(name: str, base_url: str, **more: Any) -> Provider:
    from ai_lab.providers.openai_compatible import OpenAICompatible  # noqa: PLC0415 - as above
    from ai_lab.providers.openai_options import DIALECTS, PLAIN  # noqa: PLC0415 - as above

    service = _service_at(base_url)
    dialect = DIALECTS.get(service or name, PLAIN)
    if service is None:  # a server of somebody's own may put anything where the service has dollars
        dialect = replace(dialect, tells_cost=False)
    return OpenAICompatible(name, base_url, dialect=dialect, **more)


def _azure(name: str, base_url: str, **more: Any) -> Provider:
    from ai_lab.providers.azure import Azure  # noqa: PLC0415 - as above

    return Azure(name, base_url, **more)


def _anthropic(name: str, base_url: str, **more: Any) -> Provider:
    from ai_lab.providers.anthropic import Anthropic  # noqa: PLC0415 - as above

    return Anthropic(name, base_url, **more)


def _cohere(name: str, base_url: str, **more: Any) -> Provider:
    from ai_lab.providers.cohere import Cohere  # noqa: PLC0415 - as above

    return Cohere(name, base_url, **more)


def _google(name: str, base_url: str, **more: Any) -> Provider:
    from ai_lab.providers.google import Google  # noqa: PLC0415 - as above

    return Google(name, base_url, **more)


#: How providers of services with keys are made, by the name in ``services.json``. They are imported when one is used.
ADAPTERS: dict[str, Callable[..., Provider]] = {
    "openai": _openai,
    "azure": _azure,
    "anthropic": _anthropic,
    "cohere": _cohere,
    "google": _google,
}

#: In the order in which a model name without a provider is looked for; servers of the user come after Ollama.
SERVICES = (
    Service("ollama", "Ollama", _ollama, lambda settings: settings.ollama_host),
    Service("embedded", "Embedded engine (llama.cpp)", _embedded),
    Service("echo", "Echo (answers with the question)", _echo),
    Service("embedder", "Embedder (vectors of texts, ONNX Runtime)", _embedder),
)


def services(settings: Settings) -> list[Service]:
    """Return all rows but those of ``keyed_service``: built-in ones, the user's servers, those of installed packages.

    Raises:
        InvalidSettings: two rows have the same name, or a server's address cannot be used.
    """
    rows = [SERVICES[0], *(_server_row(name, entry) for name, entry in settings.servers.items()), *SERVICES[1:]]
    rows += [
        Service(entry.name, entry.name, partial(_packaged, entry.load()))
        for entry in entry_points(group=ENTRY_POINT_GROUP)
    ]
    names = [row.name.lower() for row in rows]
    for row in rows:
        if names.count(row.name.lower()) > 1:
            raise InvalidSettings(
                f"AI_LAB_SERVERS: another provider is called {row.name!r} already; capital letters make no difference."
            )
    return rows


def keyed_services(secrets: Secrets) -> dict[str, str]:
    """Return the base URLs of the services that stored keys make usable, by name; no I/O."""
    custom = secrets.custom_services()
    known = known_services()
    usable = {
        service.name: url
        for service in known.values()
        if service.adapter in ADAPTERS
        and secrets.has_key(service.name)
        and (url := custom.get(service.name) or service.base_url)
    }
    return usable | {name: url for name, url in custom.items() if name not in known}


def keyed_service(name: str, base_url: str, outbound: Outbound) -> Service:
    """Return the row of one of ``keyed_services``. Its key goes to ``base_url`` and no connection anywhere else."""
    known = known_services().get(name)

    def build(settings: Settings, secrets: Secrets) -> Provider:
        return ADAPTERS[known.adapter if known else "openai"](
            name,
            base_url,
            api_key=partial(_secret, secrets, name, base_url),
            timeout_seconds=settings.request_timeout_seconds,
            transport=outbound.stream_transport(base_url, is_local=False),
        )

    return Service(name, known.title if known else name, build, lambda _settings: base_url, takes_key=True)


def is_on_this_machine(address: str | None) -> bool:
    """Return whether an address cannot leave the machine; a name other than localhost may mean anything."""
    if address is None:
        return True
    host = urlsplit(address if "//" in address else f"//{address}").hostname or "127.0.0.1"
    try:
        return ipaddress.ip_address(host).is_loopback or host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    except ValueError:
        return host == "localhost"


def _service_at(base_url: str) -> str | None:
    """Return the name of the known service at an address."""
    with contextlib.suppress(AddressRefused):  # it has a user's name in it, for one
        return next((service.name for service in known_services().values() if service.is_own(base_url)), None)
    return None


def _server_row(name: str, entry: ServerEntry) -> Service:
    if not name or "/" in name or len(name) > _NAME_LENGTH:
        raise InvalidSettings(
            f"AI_LAB_SERVERS: {name!r} cannot be a provider's name: 1 to {_NAME_LENGTH} characters without a slash."
        )
    base_url = check_base_url(entry.base_url)

    def build(settings: Settings, secrets: Secrets) -> Provider:
        async def key() -> str | None:
            return entry.api_key.get_secret_value() if entry.api_key else await _secret(secrets, name, base_url)

        return _openai(
            name,
            base_url,
            api_key=key,
            context_tokens=entry.context_tokens,
            timeout_seconds=settings.request_timeout_seconds,
        )

    return Service(name, name, build, lambda _settings: base_url, takes_key=entry.api_key is None)


def _packaged(build: Callable[[Settings], Provider], settings: Settings, _secrets: Secrets) -> Provider:
    return build(settings)


async def _secret(secrets: Secrets, name: str, base_url: str) -> str | None:
    """Return the key of a service; a sealed vault is no reason to fail where none is stored."""
    return await secrets.secret_for(name, base_url) if secrets.has_key(name) else None
