"""Cohere's API, version 2. Facts about it are those of docs.cohere.com/v2/reference as of 2026-11."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from ai_lab.errors import LabError, ProviderError
from ai_lab.providers.cohere_request import chat_body
from ai_lab.providers.cohere_stream import CohereReader
from ai_lab.providers.event_stream import ask_for_answer, count_of
from ai_lab.providers.http_check import check_service
from ai_lab.providers.http_service import HttpService, ReadKey
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo, Usage

_PAGE_LENGTH = 1000
_MOST_PAGES = 20
_LIST_TIMEOUT_SECONDS = 10.0
_LIST_RETRY_SECONDS = 60.0
_TEXTS_IN_A_REQUEST = 96
_CAPABILITIES = {
    "tools": "tools",
    "json_mode": "json",
    "json_schema": "json",
    "vision": "images",
    "reasoning": "thinking",
}


class Cohere:
    """A provider at an address such as ``https://api.cohere.com``, with or without ``/v2``.

    Args:
        name: the provider's name.
        base_url: the address.
        api_key: returns the key, or None; asked at every request.
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
            base_url.rstrip("/").removesuffix("/v2").removesuffix("/v1"),
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            address_hint=" (such as https://api.cohere.com)",
        )
        self._list_timeout_seconds = min(timeout_seconds, _LIST_TIMEOUT_SECONDS)
        self._listed: dict[str, ModelInfo] = {}
        self._listed_at = -math.inf

    @property
    def address(self) -> str:
        """The base URL, without ``/v2``."""
        return self._service.base_url

    async def api_key(self) -> str | None:
        """Return the key as it is now; for one use, not to be kept."""
        return await self._service.key()

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Return the answer as it arrives; closing the generator closes the connection."""
        return ask_for_answer(
            self._service,
            "/v2/chat",
            request.model,
            body=lambda: chat_body(self.name, request, thinks=self._thinks(request.model)),
            reader=partial(CohereReader, self.name, request.model),
        )

    async def models(self) -> list[ModelInfo]:
        """Return the models that chat or make embeddings."""
        found: list[ModelInfo] = []
        path: str | None = f"/v1/models?page_size={_PAGE_LENGTH}"
        for _ in range(_MOST_PAGES):
            if path is None:
                break
            page = await self._service.fetch("GET", path, timeout_seconds=self._list_timeout_seconds)
            entries = page.get("models") if isinstance(page, dict) else None
            if not isinstance(entries, list):
                raise ProviderError(f"{self.name} sent a list of models that is not in the shape of its API.")
            found += [model for entry in entries if (model := _model_info(entry))]
            token = page.get("next_page_token")
            path = (
                f"/v1/models?page_size={_PAGE_LENGTH}&page_token={quote(token, safe='')}"
                if isinstance(token, str) and token
                else None
            )
        self._listed = {model.name: model for model in found}
        return found

    async def context_tokens(self, model: str) -> int | None:
        """Return what the list of models says; None where that is not known."""
        if model not in self._listed and time.monotonic() - self._listed_at > _LIST_RETRY_SECONDS:
            self._listed_at = time.monotonic()
            with contextlib.suppress(LabError):
                await self.models()
        listed = self._listed.get(model)
        return listed.context_tokens if listed else None

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return None: a call over the network for every message is not worth it."""
        return None

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Return one vector per text, made as those of documents are.

        The service makes other vectors for questions that are looked up among documents; the request does not say
        which the texts are.
        """
        vectors: list[list[float]] = []
        prompt_tokens: int | None = 0
        for start in range(0, len(texts), _TEXTS_IN_A_REQUEST):
            part = list(texts[start : start + _TEXTS_IN_A_REQUEST])
            body = {"model": model, "texts": part, "input_type": "search_document", "embedding_types": ["float"]}
            answer = await self._service.fetch("POST", "/v2/embed", body, model=model)
            vectors += _vectors(self.name, answer, len(part))
            counted = _billed_tokens(answer)
            prompt_tokens = None if prompt_tokens is None or counted is None else prompt_tokens + counted
        return Embeddings(vectors, None if prompt_tokens is None else Usage(prompt_tokens=prompt_tokens))

    async def check(self) -> Check:
        """Return whether the service lists its models within a second."""
        return await check_service(self._service, "/v1/models?page_size=1")

    async def close(self) -> None:
        """Give back all connections."""
        await self._service.close()

    def _thinks(self, model: str) -> bool:
        listed = self._listed.get(model)
        return "thinking" in listed.capabilities if listed else "reasoning" in model


def _model_info(entry: Any) -> ModelInfo | None:
    """Return a model; None for one that only ranks or classifies, or is withdrawn."""
    if not (isinstance(entry, dict) and isinstance(entry.get("name"), str)) or entry.get("is_deprecated"):
        return None
    endpoints = entry.get("endpoints") or []
    capabilities = {_CAPABILITIES[feature] for feature in entry.get("features") or [] if feature in _CAPABILITIES}
    if "embed" in endpoints:
        capabilities.add("embeddings")
    elif "chat" not in endpoints:
        return None
    return ModelInfo(
        name=entry["name"],
        context_tokens=count_of(entry.get("context_length")) or None,
        capabilities=frozenset(capabilities),
    )


def _vectors(name: str, answer: Any, count: int) -> list[list[float]]:
    try:
        vectors = [[float(number) for number in vector] for vector in answer["embeddings"]["float"]]
    except (KeyError, TypeError, ValueError):
        raise ProviderError(f"{name} sent embeddings that are not in the shape of its API.") from None
    if len(vectors) != count:
        raise ProviderError(f"{name} sent {len(vectors)} embeddings for {count} texts.")
    return vectors


def _billed_tokens(answer: dict[str, Any]) -> int | None:
    meta = answer.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    return count_of(billed.get("input_tokens")) if isinstance(billed, dict) else None
