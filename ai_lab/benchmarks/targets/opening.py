"""An address becomes a target that can be asked. Runs in the measuring process, which loads what it takes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.targets.address import Address, bare_address
from ai_lab.benchmarks.targets.target import Target
from ai_lab.errors import LabError, ProviderAuthFailed, ProviderUnavailable
from ai_lab.providers.outbound import Outbound, place_of
from ai_lab.settings import Settings

if TYPE_CHECKING:
    from ai_lab.benchmarks.targets.connection import Connections


async def open_target(address: Address, arm: Arm, *, timeout_seconds: float, settings: Settings) -> Target:
    """Return the target at ``address``: its server answers and has the model, or its engine runs.

    Args:
        address: as ``resolve`` found it.
        arm: whose options every request gets.
        timeout_seconds: the longest silence of the server.
        settings: of the lab: models, engine, providers.

    Raises:
        AddressRefused: nothing is sent to where it is.
        ProviderUnavailable: the server cannot be reached, or speaks nothing that we do.
        ModelNotFound: it does not have the model.
        LabError: it refuses the key, or the engine cannot load the model.
    """
    if address.protocol == "engine":
        from ai_lab.benchmarks.targets.engine import EngineTarget  # noqa: PLC0415 - the server process loads none of it

        return await EngineTarget.start(address, arm.options, timeout_seconds=timeout_seconds, settings=settings)
    if address.protocol == "provider":
        from ai_lab.benchmarks.targets.provider import ProviderTarget  # noqa: PLC0415 - as above

        return await ProviderTarget.start(address, arm.options, timeout_seconds=timeout_seconds, settings=settings)
    return await _open_http(address, arm, timeout_seconds, Outbound(settings.allowed_addresses))


async def _open_http(address: Address, arm: Arm, timeout_seconds: float, outbound: Outbound) -> Target:
    from ai_lab.benchmarks.targets.connection import Connections  # noqa: PLC0415 - as above
    from ai_lab.benchmarks.targets.ollama import OllamaTarget  # noqa: PLC0415 - as above
    from ai_lab.benchmarks.targets.openai import OpenAITarget  # noqa: PLC0415 - as above

    url = (address.base_url or "").rstrip("/")
    key = address.api_key.get_secret_value().strip() if address.api_key else None
    if key and not (key.isascii() and key.isprintable()):
        raise ProviderAuthFailed("The API key has characters that no key has. Enter it again.")
    name = "Ollama" if address.protocol == "ollama" else urlsplit(url).netloc.rpartition("@")[2]
    place = place_of(bare_address(url))
    with contextlib.suppress(OSError):  # a name that only a proxy knows, or none at all: connecting tells
        await outbound.addresses(place, is_local=address.is_own)
    connections = Connections(
        name,
        url.removesuffix("/v1"),
        key,
        timeout_seconds=timeout_seconds,
        vet=outbound.rule(place, is_local=address.is_own),
    )
    try:
        protocol = address.protocol
        if protocol == "auto":
            protocol = "openai" if url.endswith("/v1") else await _spoken(connections)
        made = OllamaTarget if protocol == "ollama" else OpenAITarget
        target = made(address.model_copy(update={"protocol": protocol}), dict(arm.options), connections)
        await target.open()
    except BaseException:
        await connections.close()
        raise
    return target


async def _spoken(connections: Connections) -> Literal["ollama", "openai"]:
    """Ask a server what it speaks: only Ollama tells its version here.

    Raises:
        ProviderUnavailable: it does not answer.
    """
    try:
        answer = await connections.fetch("GET", "/api/version")
    except ProviderUnavailable:
        raise
    except LabError:  # it answers, but has no such thing
        return "openai"
    return "ollama" if isinstance(answer, dict) and isinstance(answer.get("version"), str) else "openai"
