"""Any service that speaks OpenAI's HTTP API: llama.cpp, vLLM, LM Studio, and most hosted ones."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx

from ai_lab import clock
from ai_lab.errors import (
    AddressRefused,
    LabError,
    ProviderAuthFailed,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
)
from ai_lab.providers.http_client import read_body, read_lines
from ai_lab.providers.http_service import JSON_LIMIT_BYTES, HttpService, ReadKey, drain
from ai_lab.providers.openai_stream import AnswerReader
from ai_lab.providers.types import ChatRequest, Check, Chunk, Message, ModelInfo

_OPTIONS = frozenset({"temperature", "top_p", "seed", "max_tokens", "stop", "presence_penalty", "frequency_penalty"})
_EXTENDED_OPTIONS = frozenset({"top_k", "min_p", "repeat_penalty"})
#: Where services write a model's context, the one in force before the one it was trained with.
_CONTEXT_FIELDS = ("n_ctx", "max_model_len", "context_length", "context_window", "max_context_length", "n_ctx_train")

_CHECK_TIMEOUT_SECONDS = 1.0
_LIST_TIMEOUT_SECONDS = 10.0
_CONTEXT_RETRY_SECONDS = 60.0


class OpenAICompatible:
    """A provider at a base URL such as ``http://host:8080/v1``.

    Args:
        name: the provider's name.
        base_url: the address up to and including ``/v1``.
        api_key: returns the key, or None; asked at every request.
        context_tokens: the context of its models, where it is known; else the service is asked.
        timeout_seconds: the longest silence of the service.
        transport: what makes the connections, see ``HttpService``.
        extended_options: the service takes llama.cpp's ``top_k``, ``min_p`` and ``repeat_penalty`` as well.
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
        extended_options: bool = False,
    ) -> None:
        self.name = name
        self._service = HttpService(
            name, base_url, api_key=api_key, timeout_seconds=timeout_seconds, transport=transport
        )
        self._context_tokens = context_tokens
        self._list_timeout_seconds = min(timeout_seconds, _LIST_TIMEOUT_SECONDS)
        self._options = _OPTIONS | _EXTENDED_OPTIONS if extended_options else _OPTIONS
        self._contexts: dict[str, int | None] = {}
        self._contexts_read_at = -math.inf

    @property
    def address(self) -> str:
        """The base URL."""
        return self._service.base_url

    async def api_key(self) -> str | None:
        """Return the key as it is now; for one use, not to be kept."""
        return await self._service.key()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it arrives; closing the generator closes the connection."""
        body, warnings = self._body(request)
        async with self._service.open("POST", "/chat/completions", body, model=request.model) as exchange:
            response = exchange.response
            answer = AnswerReader(self.name, request.model, exchange.errors, warnings)
            try:
                kind = response.headers.get("content-type", "")
                if kind.startswith("text/html"):
                    raise ProviderError(f"{self.name} answered with a web page. Check its address (most end in /v1).")
                if kind.startswith("application/json"):  # it does not stream: the whole answer is one event
                    if chunk := answer.read_event(await read_body(response, JSON_LIMIT_BYTES)):
                        yield chunk
                else:
                    async with contextlib.aclosing(read_lines(response)) as blocks:
                        async for lines in blocks:
                            for chunk in answer.read(lines):
                                yield chunk
                            if answer.done:
                                await drain(blocks)
                                break
            except httpx.HTTPError as error:
                # Once the service has said that it finished, the answer is whole; only bookkeeping was lost.
                if answer.finish_reason is None:
                    raise exchange.errors.from_httpx(error, streaming=True) from error
        yield answer.last_chunk()

    async def models(self) -> list[ModelInfo]:
        """Return the models that the service lists."""
        listed = await self._service.fetch("GET", "/models", timeout_seconds=self._list_timeout_seconds)
        entries = listed.get("data") if isinstance(listed, dict) else listed
        found = [
            _model_info(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        ]
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

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
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
        return vectors

    async def check(self) -> Check:
        """Return whether the service lists its models within a second."""
        start_ms = clock.monotonic_ms()
        detail = "answers"
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
                await self._service.fetch("GET", "/models")
        except TimeoutError:
            detail = f"{self.name} did not answer within {_CHECK_TIMEOUT_SECONDS:g} s."
            return Check(reachable=False, detail=detail, remedy="Wait for it, or restart it.")
        except (AddressRefused, ProviderUnavailable, ProviderTimeout) as error:
            return Check(reachable=False, detail=error.detail, remedy="Start it, or correct its address.")
        except ProviderAuthFailed as error:
            return Check(reachable=False, detail=error.detail, remedy="Correct its API key.")
        except LabError as error:  # it answers, but has no list of models
            detail = error.detail
        return Check(reachable=True, detail=detail, latency_ms=clock.monotonic_ms() - start_ms)

    async def close(self) -> None:
        """Give back all connections."""
        await self._service.close()

    def _body(self, request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return what is sent, and a warning for every option that is not."""
        given = {name: value for name, value in request.options.items() if value is not None}
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [_message_body(message) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in given.items() if name in self._options},
        }
        if request.tools:
            body["tools"] = request.tools
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice
        if request.response_format is not None:
            body["response_format"] = request.response_format
        return body, tuple(
            f"option {name!r} is not supported by {self.name} and was ignored"
            for name in sorted(given.keys() - self._options)
        )


def _message_body(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    for field in ("name", "tool_calls", "tool_call_id"):
        if (value := getattr(message, field)) is not None:
            body[field] = value
    return body


def _model_info(entry: dict[str, Any]) -> ModelInfo:
    meta = entry["meta"] if isinstance(entry.get("meta"), dict) else {}
    contexts = (source.get(field) for field in _CONTEXT_FIELDS for source in (meta, entry))
    size = meta.get("size")
    return ModelInfo(
        name=entry["id"],
        context_tokens=next((value for value in contexts if isinstance(value, int) and value > 0), None),
        size_bytes=size if isinstance(size, int) else None,
    )
