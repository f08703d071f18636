"""Azure OpenAI by its v1 API: OpenAI's format at an address of the customer's own.

Facts about it are those of learn.microsoft.com, Azure OpenAI REST API reference, as of 2026-11. A model's name is that
of a deployment.
"""

from __future__ import annotations

import re
from typing import Any

import httpx

from ai_lab.errors import ProviderAuthFailed, ProviderError, ProviderRefused, ProviderTimeout, ProviderUnavailable
from ai_lab.providers.http_service import HttpService, ReadKey
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.openai_options import OPENAI
from ai_lab.providers.types import ModelInfo

#: The one version of the older API that lists what is deployed; the v1 API lists what could be.
_DEPLOYMENTS = "/openai/deployments?api-version=2023-03-15-preview"


class Azure(OpenAICompatible):
    """A provider at a resource such as ``https://name.openai.azure.com``, with or without ``/openai/v1``.

    Args:
        name: the provider's name.
        base_url: the address of the resource.
        api_key: returns the key, or None; asked at every request. It travels in the header ``api-key``.
        timeout_seconds: the longest silence of the service.
        transport: what makes the connections, see ``HttpService``.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: ReadKey | None = None,
        timeout_seconds: float = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        resource = re.sub(r"(/openai(/v1)?)?$", "", base_url.rstrip("/"))
        super().__init__(
            name,
            f"{resource}/openai/v1",
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            dialect=OPENAI,
            key_header="api-key",
            key_scheme="",
        )
        self._resource = HttpService(
            name,
            resource,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            key_header="api-key",
            key_scheme="",
        )

    async def models(self) -> list[ModelInfo]:
        """Return the deployments; where the resource does not list them, the models that it could deploy."""
        try:
            listed = await self._resource.fetch("GET", _DEPLOYMENTS, timeout_seconds=self._list_timeout_seconds)
        except (ProviderAuthFailed, ProviderTimeout, ProviderUnavailable):
            raise
        except (ProviderError, ProviderRefused):
            return await super().models()
        entries = listed.get("data") if isinstance(listed, dict) else None
        found = [
            _deployment(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        ]
        self._contexts = {model.name: None for model in found}
        return found

    async def close(self) -> None:
        """Give back all connections."""
        await super().close()
        await self._resource.close()


def _deployment(entry: dict[str, Any]) -> ModelInfo:
    embeds = "embedding" in str(entry.get("model", ""))
    return ModelInfo(entry["id"], capabilities=frozenset({"embeddings"} if embeds else {"json"}))
