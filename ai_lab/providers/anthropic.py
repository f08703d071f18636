"""Anthropic's Messages API. Facts about it are those of platform.claude.com/docs/en/api as of 2026-11."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from ai_lab.errors import LabError, ProviderError, UnsupportedFeature
from ai_lab.providers.anthropic_request import SAMPLING_OPTIONS, message_body
from ai_lab.providers.anthropic_stream import AnthropicReader
from ai_lab.providers.anthropic_thinking import Mind, is_about_thinking, listed_mind, usual_mind
from ai_lab.providers.event_stream import ask_for_answer, count_of
from ai_lab.providers.http_check import check_service
from ai_lab.providers.http_service import HttpService, ReadKey
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo

_API_VERSION = "2023-06-01"
_PAGE_LENGTH = 1000
_MOST_PAGES = 20
_LIST_TIMEOUT_SECONDS = 10.0
_LIST_RETRY_SECONDS = 60.0
#: The context of every Claude model whose context the list does not tell (vendor's table of models).
_CLAUDE_CONTEXT_TOKENS = 200_000
_CAPABILITIES = {"image_input": "images", "structured_outputs": "json", "thinking": "thinking"}


class Anthropic:
    """A provider at an address such as ``https://api.anthropic.com``, with or without ``/v1``.

    Args:
        name: the provider's name.
        base_url: the address.
        api_key: returns the key, or None; asked at every request. It travels in ``x-api-key``.
        timeout_seconds: the longest silence of the service.
        transport: what makes the connections, see ``HttpService``.
    """

    supports_tools = True
    supports_response_format = True

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: ReadKey | None = None,
        timeout_seconds: float = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self._service = HttpService(
            name,
            base_url.rstrip("/").removesuffix("/v1"),
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            key_header="x-api-key",
            key_scheme="",
            headers={"anthropic-version": _API_VERSION},
            address_hint=" (such as https://api.anthropic.com)",
        )
        self._list_timeout_seconds = min(timeout_seconds, _LIST_TIMEOUT_SECONDS)
        self._contexts: dict[str, int | None] = {}
        self._most_tokens: dict[str, int] = {}
        self._listed_at = -math.inf
        #: Models that were found to refuse temperature, top_p and top_k.
        self._without_sampling: set[str] = set()
        self._minds: dict[str, Mind] = {}
        #: Models with efforts that they were found to refuse.
        self._refused_efforts: set[tuple[str, str]] = set()

    @property
    def address(self) -> str:
        """The base URL, without ``/v1``."""
        return self._service.base_url

    async def api_key(self) -> str | None:
        """Return the key as it is now; for one use, not to be kept."""
        return await self._service.key()

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Return the answer as it arrives; closing the generator closes the connection."""
        return ask_for_answer(
            self._service,
            "/v1/messages",
            request.model,
            body=lambda: self._body(request),
            reader=partial(AnthropicReader, self.name, request.model),
            learn=partial(self._learn, request),
        )

    async def models(self) -> list[ModelInfo]:
        """Return the models that the service lists and that are not retired."""
        found: list[ModelInfo] = []
        path: str | None = f"/v1/models?limit={_PAGE_LENGTH}"
        for _ in range(_MOST_PAGES):
            if path is None:
                break
            page = await self._service.fetch("GET", path, timeout_seconds=self._list_timeout_seconds)
            entries = page.get("data") if isinstance(page, dict) else None
            if not isinstance(entries, list):
                raise ProviderError(f"{self.name} sent a list of models that is not in the shape of its API.")
            found += [self._model_info(entry) for entry in entries if _is_offered(entry)]
            last = page.get("last_id") if page.get("has_more") else None
            path = f"/v1/models?limit={_PAGE_LENGTH}&after_id={quote(last, safe='')}" if isinstance(last, str) else None
        self._contexts = {model.name: model.context_tokens for model in found}
        return found

    async def context_tokens(self, model: str) -> int | None:
        """Return what the list of models says, else 200,000 for what is called ``claude-…``."""
        if model not in self._contexts and time.monotonic() - self._listed_at > _LIST_RETRY_SECONDS:
            self._listed_at = time.monotonic()
            with contextlib.suppress(LabError):
                await self.models()
        default = _CLAUDE_CONTEXT_TOKENS if model.startswith("claude-") else None
        return self._contexts.get(model) or default

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return None: the service counts, but a call over the network for every message is not worth it."""
        return None

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Raise ``UnsupportedFeature``: the service makes no embeddings."""
        raise UnsupportedFeature(
            f"{self.name} makes no embeddings. Choose a model that does, such as embedder/all-MiniLM-L6-v2.",
            param="model",
        )

    async def check(self) -> Check:
        """Return whether the service lists its models within a second."""
        return await check_service(self._service, "/v1/models?limit=1")

    async def close(self) -> None:
        """Give back all connections."""
        await self._service.close()

    def _body(self, request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
        model = request.model
        is_refused = (model, request.options.get(EFFORT)) in self._refused_efforts
        return message_body(
            self.name,
            request,
            most_tokens=self._most_tokens.get(model),
            takes_sampling=model not in self._without_sampling,
            mind=None if is_refused else self._minds.get(model) or usual_mind(model),
        )

    def _learn(self, request: ChatRequest, body: dict[str, Any], error: LabError) -> bool:
        """Note what of a request its model refuses; return whether it can do without it."""
        if "thinking" in body and is_about_thinking(error.detail):
            self._refused_efforts.add((request.model, request.options[EFFORT]))
        elif any(f"`{option}`" in error.detail for option in SAMPLING_OPTIONS & body.keys()):
            self._without_sampling.add(request.model)
        else:
            return False
        return True

    def _model_info(self, entry: dict[str, Any]) -> ModelInfo:
        name = entry["id"]
        if most_tokens := count_of(entry.get("max_tokens")):
            self._most_tokens[name] = most_tokens
        listed = entry.get("capabilities")
        if mind := listed_mind(listed):
            self._minds[name] = mind
        supported = {
            ours
            for theirs, ours in _CAPABILITIES.items()
            if isinstance(listed, dict) and isinstance(said := listed.get(theirs), dict) and said.get("supported")
        }
        return ModelInfo(
            name=name,
            context_tokens=count_of(entry.get("max_input_tokens")) or None,
            capabilities=frozenset({"tools", *supported}),
        )


def _is_offered(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry.get("lifecycle") != "retired"
