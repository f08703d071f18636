"""Any service that speaks OpenAI's HTTP API: llama.cpp, vLLM, LM Studio, and most hosted ones."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import httpx

from ai_lab.errors import LabError, ProviderError
from ai_lab.providers.event_stream import ask_for_answer, count_of
from ai_lab.providers.http_check import check_service
from ai_lab.providers.http_service import HttpService, ReadKey
from ai_lab.providers.openai_models import model_infos
from ai_lab.providers.openai_options import PLAIN, Dialect, chosen, refused_name
from ai_lab.providers.openai_stream import AnswerReader, cost_nanousd
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo, Usage

_LIST_TIMEOUT_SECONDS = 10.0
_CONTEXT_RETRY_SECONDS = 60.0
_MOST_LEARNT = 1000
#: What a model that refuses the one takes instead.
_NEWER_NAMES = {"max_tokens": "max_completion_tokens"}


class OpenAICompatible:
    """A provider at a base URL such as ``http://host:8080/v1``.

    Args:
        name: the provider's name.
        base_url: the address up to and including ``/v1``.
        api_key: returns the key, or None; asked at every request.
        context_tokens: the context of its models, where it is known; else the service is asked.
        timeout_seconds: the longest silence of the service.
        transport: what makes the connections, see ``HttpService``.
        dialect: which options the service takes.
        key_header: the header that carries the key.
        key_scheme: what stands before the key in it.
    """

    supports_tools = True
    supports_response_format = True

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: ReadKey | None = None,
        context_tokens: int | None = None,
        timeout_seconds: float = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
        dialect: Dialect = PLAIN,
        key_header: str = "Authorization",
        key_scheme: str = "Bearer ",
    ) -> None:
        self.name = name
        self._service = HttpService(
            name,
            base_url,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            key_header=key_header,
            key_scheme=key_scheme,
        )
        self._context_tokens = context_tokens
        self._list_timeout_seconds = min(timeout_seconds, _LIST_TIMEOUT_SECONDS)
        self._dialect = dialect
        #: What models were found to refuse, see ``chosen``.
        self._refused: dict[str, dict[str, str | None]] = {}
        self._contexts: dict[str, int | None] = {}
        self._contexts_read_at = -math.inf

    @property
    def address(self) -> str:
        """The base URL."""
        return self._service.base_url

    async def api_key(self) -> str | None:
        """Return the key as it is now; for one use, not to be kept."""
        return await self._service.key()

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Return the answer as it arrives; closing the generator closes the connection."""
        return ask_for_answer(
            self._service,
            "/chat/completions",
            request.model,
            body=lambda: self._body(request),
            reader=partial(AnswerReader, self.name, request.model, tells_cost=self._dialect.tells_cost),
            learn=partial(self._learn, request),
        )

    async def models(self) -> list[ModelInfo]:
        """Return the models that the service lists."""
        listed = await self._service.fetch("GET", "/models", timeout_seconds=self._list_timeout_seconds)
        found = model_infos(listed)
        self._contexts = {model.name: model.context_tokens for model in found}
        return found

    async def context_tokens(self, model: str) -> int | None:
        """Return the configured context, else what the list of models says; None where that is not known."""
        if self._context_tokens is not None:
            return self._context_tokens
        if model not in self._contexts and time.monotonic() - self._contexts_read_at > _CONTEXT_RETRY_SECONDS:
            self._contexts_read_at = time.monotonic()
            with contextlib.suppress(LabError):  # many services answer chats without listing their models
                await self.models()
        return self._contexts.get(model)

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return None: the API has no call for it."""
        return None

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Return one vector per text."""
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        answer = await self._service.fetch("POST", "/embeddings", body, model=model)
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = [[float(number) for number in row["embedding"]] for row in rows]
        except (KeyError, TypeError, ValueError):
            raise ProviderError(f"{self.name} sent embeddings that are not in the shape of OpenAI's API.") from None
        if len(vectors) != len(texts):
            raise ProviderError(f"{self.name} sent {len(vectors)} embeddings for {len(texts)} texts.")
        counted = found if isinstance(found := answer.get("usage"), dict) else {}
        cost = cost_nanousd(counted) if self._dialect.tells_cost else None
        usage = Usage(prompt_tokens=count_of(counted.get("prompt_tokens")), cost_nanousd=cost)
        return Embeddings(vectors, usage if usage != Usage() else None)

    async def check(self) -> Check:
        """Return whether the service lists its models within a second."""
        return await check_service(self._service, "/models")

    async def close(self) -> None:
        """Give back all connections."""
        await self._service.close()

    def _body(self, request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return what is sent, and a warning for every option that is not."""
        options, ignored = chosen(self._dialect, request.options, self._refused.get(request.model, {}))
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [_message_body(message, self._dialect) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._dialect.extra,
            **options,
        }
        if request.tools:
            body["tools"] = request.tools
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        if request.response_format is not None:
            body["response_format"] = request.response_format
        return body, tuple(f"option {name!r} is not supported by {self.name} and was ignored" for name in ignored)

    def _learn(self, request: ChatRequest, body: dict[str, Any], error: LabError) -> bool:
        """Note that a model refuses a field; return whether the request can do without it."""
        field = error.param
        if field is None and EFFORT in error.detail:  # servers that know no such field say so in words of their own
            field = EFFORT
        sent, _ = chosen(self._dialect, request.options, self._refused.get(request.model, {}))
        if field not in sent.keys() | self._dialect.options.values() or field not in body:
            return False
        if len(self._refused) >= _MOST_LEARNT:
            self._refused.clear()
        name = refused_name(field, body[field])
        self._refused[request.model] = self._refused.get(request.model, {}) | {name: _NEWER_NAMES.get(field)}
        return True


def _message_body(message: Message, dialect: Dialect) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": _content(message, dialect)}
    for field in ("name", "tool_calls", "tool_call_id"):
        if (value := getattr(message, field)) is not None:
            body[field] = value
    if message.tool_calls and dialect.is_strict:
        body["tool_calls"] = [
            {field: call[field] for field in ("id", "type", "function") if field in call} for call in message.tool_calls
        ]
    return body


def _content(message: Message, dialect: Dialect) -> str | list[dict[str, Any]]:
    """Return what a message says, without marks that the service does not know; many take nothing but text then."""
    if isinstance(message.content, str) or dialect.takes_cache_control:
        return message.content
    if not message.has_images():
        return message.text()
    return [{name: part[name] for name in part if name != "cache_control"} for part in message.content]
