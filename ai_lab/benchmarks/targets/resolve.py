"""What an arm of a plan means on this installation."""

from __future__ import annotations

from pydantic import SecretStr

from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.targets.address import Address, bare_address
from ai_lab.errors import InvalidRequest
from ai_lab.providers import Providers
from ai_lab.providers.outbound import Outbound


async def resolve(arm: Arm, providers: Providers) -> Address:
    """Return where ``arm`` is found, with its key; nothing is started, and a server that is silent is no error yet.

    Raises:
        AddressRefused: nothing is sent to an address of this kind.
        InvalidRequest: engine options or an endpoint that the provider has not.
        LabError: its key cannot be had now.
        ModelNotFound: no provider has the model; the text names the nearest ones.
    """
    if arm.url:
        Outbound().check(bare_address(arm.url), is_local=True)
        return Address(
            protocol=arm.protocol,
            model=arm.model or "",
            base_url=arm.url,
            api_key=arm.api_key,
            endpoint=arm.endpoint,
        )
    from ai_lab.providers.ollama import Ollama  # noqa: PLC0415 - loads the ollama package, as resolving does anyway
    from ai_lab.providers.openai_compatible import OpenAICompatible  # noqa: PLC0415 - as above

    resolved = await providers.resolve(arm.model)
    name = resolved.provider.name
    if arm.engine and name != "embedded":
        raise InvalidRequest(
            f"engine options are for embedded models; {resolved.full_name} is run by {name}. Leave engine out.",
            param="engine",
        )
    if name == "embedded":
        return Address(protocol="engine", model=resolved.model, endpoint=arm.endpoint, engine=arm.engine)
    if isinstance(resolved.provider, Ollama | OpenAICompatible):
        key = await resolved.provider.api_key()
        return Address(
            protocol="ollama" if isinstance(resolved.provider, Ollama) else "openai",
            model=resolved.model,
            base_url=resolved.provider.address,
            is_own=providers.is_own(name),
            api_key=SecretStr(key) if key else None,
            endpoint=arm.endpoint,
        )
    if arm.endpoint == "generate":
        raise InvalidRequest(f"{name} has no other endpoint than chat. Leave endpoint out.", param="endpoint")
    return Address(protocol="provider", provider=name, model=resolved.model)
