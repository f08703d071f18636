"""Google's Gemini API. Facts about it are those of ai.google.dev/api as of 2026-11."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from ai_lab.errors import LabError, ProviderError
from ai_lab.providers.event_stream import Body, ask_for_answer, count_of
from ai_lab.providers.google_request import chat_body
from ai_lab.providers.google_stream import GoogleReader
from ai_lab.providers.google_thinking import is_about_thinking, taken_effort
from ai_lab.providers.http_check import check_service
from ai_lab.providers.http_service import HttpService, ReadKey
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo, Usage

_VERSION = "/v1beta"
_PAGE_LENGTH = 1000
_MOST_PAGES = 20
_LIST_TIMEOUT_SECONDS = 10.0
_LIST_RETRY_SECONDS = 60.0
_TEXTS_IN_A_BATCH = 100
#: Which models think is in the list of models; this is for the time before it is known.
_THINKS = re.compile(r"gemini-(2\.5|[3-9]|\d\d)(?!.*(image|tts|audio|live|embedding))")


class Google:
    """A provider at an address such as ``https://generativelanguage.googleapis.com``, with or without ``/v1beta``.

    Args:
        name: the provider's name.
        base_url: the address.
        api_key: returns the key, or None; asked at every request. It travels in ``x-goog-api-key``.
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
            re.sub(r"/v1(beta)?$", "", base_url.rstrip("/")),
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            key_header="x-goog-api-key",
            key_scheme="",
            address_hint=" (such as https://generativelanguage.googleapis.com)",
        )
        self._list_timeout_seconds = min(timeout_seconds, _LIST_TIMEOUT_SECONDS)
        #: Efforts of thinking that models were found to refuse.
        self._refused: dict[str, set[str]] = {}
        self._listed: dict[str, ModelInfo] = {}
        self._listed_at = -math.inf

    @property
    def address(self) -> str:
        """The base URL, without the version."""
        return self._service.base_url

    async def api_key(self) -> str | None:
        """Return the key as it is now; for one use, not to be kept."""
        return await self._service.key()

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Return the answer as it arrives; closing the generator closes the connection."""
        sent: str | None = None

        def body() -> Body:
            nonlocal sent
            refused = frozenset(self._refused.get(request.model, ()))
            thinks = self._thinks(request.model)
            sent = taken_effort(request, refused) if thinks else None
            return chat_body(self.name, request, thinks=thinks, refused=refused)

        def learn(_body: dict[str, Any], error: LabError) -> bool:
            if sent is None or not is_about_thinking(error.detail):
                return False
            self._refused.setdefault(request.model, set()).add(sent)
            return True

        return ask_for_answer(
            self._service,
            f"{_path(request.model)}:streamGenerateContent?alt=sse",
            request.model,
            body=body,
            reader=partial(GoogleReader, self.name, request.model),
            learn=learn,
        )

    async def models(self) -> list[ModelInfo]:
        """Return the models that write or make embeddings; those for images, sound and video are left out."""
        found: list[ModelInfo] = []
        path = first = f"{_VERSION}/models?pageSize={_PAGE_LENGTH}"
        for _ in range(_MOST_PAGES):
            page = await self._service.fetch("GET", path, timeout_seconds=self._list_timeout_seconds)
            entries = page.get("models", []) if isinstance(page, dict) else None
            if not isinstance(entries, list):
                raise ProviderError(f"{self.name} sent a list of models that is not in the shape of its API.")
            found += [model for entry in entries if (model := _model_info(entry))]
            token = page.get("nextPageToken")
            if not (token and isinstance(token, str)):
                break
            path = f"{first}&pageToken={quote(token, safe='')}"
        self._listed = {model.name: model for model in found}
        return found

    async def context_tokens(self, model: str) -> int | None:
        """Return the longest prompt that the list of models tells; None where that is not known."""
        if model not in self._listed and time.monotonic() - self._listed_at > _LIST_RETRY_SECONDS:
            self._listed_at = time.monotonic()
            with contextlib.suppress(LabError):
                await self.models()
        listed = self._listed.get(model)
        return listed.context_tokens if listed else None

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return None: the service counts, but a call over the network for every message is not worth it."""
        return None

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Return one vector per text, a hundred texts to a request."""
        vectors: list[list[float]] = []
        tokens: int | None = 0
        for start in range(0, len(texts), _TEXTS_IN_A_BATCH):
            batch = texts[start : start + _TEXTS_IN_A_BATCH]
            made, counted = await self._embed_batch(model, batch)
            vectors += made
            tokens = None if tokens is None or counted is None else tokens + counted
        return Embeddings(vectors, None if tokens is None else Usage(prompt_tokens=tokens))

    async def check(self) -> Check:
        """Return whether the service lists its models within a second."""
        return await check_service(self._service, f"{_VERSION}/models?pageSize=1")

    async def close(self) -> None:
        """Give back all connections."""
        await self._service.close()

    async def _embed_batch(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int | None]:
        asked = [{"model": _full_name(model), "content": {"parts": [{"text": text}]}} for text in texts]
        path = f"{_path(model)}:batchEmbedContents"
        answer = await self._service.fetch("POST", path, {"requests": asked}, model=model)
        try:
            vectors = [[float(number) for number in row["values"]] for row in answer["embeddings"]]
        except (KeyError, TypeError, ValueError):
            raise ProviderError(f"{self.name} sent embeddings that are not in the shape of its API.") from None
        if len(vectors) != len(texts):
            raise ProviderError(f"{self.name} sent {len(vectors)} embeddings for {len(texts)} texts.")
        usage = answer.get("usageMetadata")
        return vectors, count_of(usage.get("promptTokenCount")) if isinstance(usage, dict) else None

    def _thinks(self, model: str) -> bool:
        """Return whether the model can be asked for its thoughts; others refuse such a request."""
        listed = self._listed.get(model)
        return "thinking" in listed.capabilities if listed else bool(_THINKS.match(model))


def _full_name(model: str) -> str:
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _path(model: str) -> str:
    kind, _, name = _full_name(model).partition("/")
    return f"{_VERSION}/{kind}/{quote(name, safe='')}"


def _model_info(entry: Any) -> ModelInfo | None:
    """Return a model of the list, None for one that neither chats nor makes embeddings."""
    if not (isinstance(entry, dict) and isinstance(entry.get("name"), str)):
        return None
    methods = entry.get("supportedGenerationMethods")
    methods = methods if isinstance(methods, list) else []
    capabilities: set[str] = set()
    if "generateContent" in methods:
        capabilities |= {"json"} | ({"thinking"} if entry.get("thinking") is True else set())
    elif "embedContent" in methods or "batchEmbedContents" in methods:
        capabilities.add("embeddings")
    else:
        return None
    return ModelInfo(
        name=entry["name"].removeprefix("models/"),
        context_tokens=count_of(entry.get("inputTokenLimit")) or None,
        capabilities=frozenset(capabilities),
    )
