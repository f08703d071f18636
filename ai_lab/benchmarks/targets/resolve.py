"""What an arm of a plan means on this installation."""

from __future__ import annotations

from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.targets.address import Address
from ai_lab.errors import InvalidRequest
from ai_lab.providers import Providers
from ai_lab.settings import Settings, check_base_url


async def resolve(arm: Arm, providers: Providers, settings: Settings) -> Address:
    """Return where ``arm`` is found; nothing is started, and a server that does not answer is no error yet.

    Raises:
        InvalidRequest: engine options or an endpoint that the provider has not.
        ModelNotFound: no provider has the model; the text names the nearest ones.
    """
    if arm.url:
        return Address(
            protocol=arm.protocol,
            model=arm.model or "",
            base_url=arm.url,
            api_key=arm.api_key,
            endpoint=arm.endpoint,
        )
    from ai_lab.providers.ollama import Ollama  # noqa: PLC0415 - loads the ollama package, as resolving does anyway

    resolved = await providers.resolve(arm.model)
    name = resolved.provider.name
    if arm.engine and name != "embedded":
        raise InvalidRequest(
            f"engine options are for embedded models; {resolved.full_name} is run by {name}. Leave engine out.",
            param="engine",
        )
    if name == "embedded":
        return Address(protocol="engine", model=resolved.model, endpoint=arm.endpoint, engine=arm.engine)
    if isinstance(resolved.provider, Ollama):
        address = resolved.provider.address
        return Address(protocol="ollama", model=resolved.model, endpoint=arm.endpoint, base_url=address)
    if server := settings.servers.get(name):
        return Address(
            protocol="openai",
            model=resolved.model,
            base_url=check_base_url(server.base_url),
            api_key=server.api_key,
            endpoint=arm.endpoint,
        )
    if arm.endpoint == "generate":
        raise InvalidRequest(f"{name} has no other endpoint than chat. Leave endpoint out.", param="endpoint")
    return Address(protocol="provider", provider=name, model=resolved.model)
