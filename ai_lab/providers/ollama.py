"""Ollama by its native API, which tells timings and takes the length of the context."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

import httpx
import ollama

from ai_lab import clock
from ai_lab.errors import AddressRefused, LabError, ProviderError
from ai_lab.providers.event_stream import joined
from ai_lab.providers.http_client import read_lines
from ai_lab.providers.http_errors import ServiceErrors
from ai_lab.providers.http_service import ReadKey, current_key, drain, read_error_body
from ai_lab.providers.ollama_client import OllamaClient
from ai_lab.providers.ollama_request import chat_body, least_tokens
from ai_lab.providers.ollama_stream import AnswerReader
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo, Usage

_CHECK_TIMEOUT_SECONDS = 1.0
_CAPABILITIES = {
    "tools": "tools",
    "vision": "images",
    "thinking": "thinking",
    "embedding": "embeddings",
    "completion": "json",  # whatever generates text can be held to a JSON schema
}
#: Before this version ``prompt_eval_count`` left out the tokens that the server found in its cache.
_COUNTS_CACHED_TOKENS_SINCE = (0, 2)


class Ollama:
    """A provider at an Ollama server.

    Args:
        name: the provider's name.
        host: its address, in every form that ``OLLAMA_HOST`` may have.
        context_tokens: the context to ask for; a model that has less gets what it has.
        timeout_seconds: the longest silence; loading a model is silent.
        api_key: returns the key, asked at every request; ollama.com wants one.
    """

    supports_tools = True
    supports_response_format = True

    def __init__(
        self, name: str, host: str, *, context_tokens: int, timeout_seconds: float, api_key: ReadKey | None = None
    ) -> None:
        self.name = name
        self._context_tokens = context_tokens
        self._client = OllamaClient(host, timeout_seconds)
        self._read_key = api_key
        self._errors = ServiceErrors(
            name,
            self._client.address,
            missing_model_hint="Get it with: ollama pull {model}",
            address_hint=" (OLLAMA_HOST)",
        )
        self._shown: dict[str, tuple[int | None, frozenset[str]]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    @property
    def address(self) -> str:
        """The server's base URL, with scheme and port."""
        return self._client.address

    async def api_key(self) -> str | None:
        """Return the key as it is now; for one use, not to be kept."""
        return await current_key(self.name, self._read_key)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it arrives; closing the generator closes the connection."""
        num_ctx = await self.context_tokens(request.model)
        body, warnings = chat_body(self.name, request, num_ctx, thinks="thinking" in self._shown[request.model][1])
        key = await self.api_key()
        errors = self._errors.hiding(key)
        answer = AnswerReader(self.name, request.model, errors)
        begun = False
        try:
            async with self._client.with_key(key).open_chat(body) as response:
                if not response.is_success:
                    said = await read_error_body(response)
                    raise errors.from_answer(response.status_code, response.headers, said, request.model)
                begun = True
                async with contextlib.aclosing(read_lines(response)) as blocks:
                    async for lines in blocks:
                        for chunk in joined(answer.read(lines)):
                            yield chunk
                        if answer.last is not None:
                            await drain(blocks)
                            break
        except httpx.HTTPError as error:
            raise errors.from_httpx(error, streaming=begun) from error
        except AddressRefused as error:
            raise errors.from_refusal(error) from None
        last = answer.last_chunk()
        warnings += await self._truncation(last.usage or Usage(), num_ctx, least_tokens(request.messages))
        yield replace(last, warnings=tuple(warnings))

    async def models(self) -> list[ModelInfo]:
        """Return the models that the server has; what each can do is known once it was asked for."""
        async with self._request() as client:
            listed = await client.list()
        found = []
        for model in listed.models:
            if model.model:
                context_tokens, capabilities = self._shown.get(model.model, (None, frozenset()))
                modified_at = clock.as_utc(model.modified_at) if model.modified_at else None
                found.append(ModelInfo(model.model, context_tokens, model.size, modified_at, capabilities))
        return found

    async def context_tokens(self, model: str) -> int:
        """Return the context that chats with ``model`` get: what is configured, or the model's own if that is less."""
        if model not in self._shown:
            # Asked once for all who want to know, and not cancelled with one who leaves: httpx would keep the
            # connection of a call that is cancelled early for ever.
            asking = self._asking.get(model)
            if asking is None:
                asking = self._asking[model] = asyncio.create_task(self._show(model))
                asking.add_done_callback(lambda task: self._asked(model, task))
            await asyncio.shield(asking)
        return min(self._context_tokens, self._shown[model][0] or self._context_tokens)

    async def _show(self, model: str) -> None:
        async with self._request(model) as client:
            shown = await client.show(model)
        info = shown.modelinfo or {}
        own = info.get(f"{info.get('general.architecture')}.context_length")
        known = {_CAPABILITIES[word] for word in shown.capabilities or [] if word in _CAPABILITIES}
        self._shown[model] = own if isinstance(own, int) and own > 0 else None, frozenset(known)

    def _asked(self, model: str, task: asyncio.Task[None]) -> None:
        del self._asking[model]
        if not task.cancelled():
            task.exception()  # whoever still waits gets it

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return None: the API has no call for it."""
        return None

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Return one vector per text; a text that is too long is refused, not cut."""
        # With the context of chats, so that a model that does both is not loaded anew each time.
        options = {"num_ctx": await self.context_tokens(model)}
        async with self._request(model) as client:
            answer = await client.embed(model, list(texts), truncate=False, options=options)
        if len(answer.embeddings) != len(texts):
            raise ProviderError(f"{self.name} sent {len(answer.embeddings)} embeddings for {len(texts)} texts.")
        usage = None if answer.prompt_eval_count is None else Usage(prompt_tokens=answer.prompt_eval_count)
        return Embeddings([list(vector) for vector in answer.embeddings], usage)

    async def check(self) -> Check:
        """Return whether the server tells its version within a second."""
        start_ms = clock.monotonic_ms()
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
                version = await self._version()
        except TimeoutError:
            detail = f"{self.name} did not answer within {_CHECK_TIMEOUT_SECONDS:g} s."
            return Check(reachable=False, detail=detail, remedy="Wait for it, or restart it.")
        except LabError as error:
            return Check(reachable=False, detail=error.detail, remedy="Start it (ollama serve), or set OLLAMA_HOST.")
        return Check(reachable=True, detail=f"Ollama {version}", latency_ms=clock.monotonic_ms() - start_ms)

    async def close(self) -> None:
        """Give back all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]  # the package leaves it untyped

    async def _truncation(self, usage: Usage, num_ctx: int, sent: int) -> list[str]:
        """Return a warning if the server left out a part of the prompt, as it does without saying so.

        ``sent`` is a lower bound. A prompt of more tokens than the context was cut for certain. One of more tokens than
        were evaluated was cut too, unless the server leaves out those it had in its cache, as old versions do. One that
        fills the context to the last token was cut to that length, or has no room for an answer.
        """
        evaluated = usage.prompt_tokens or 0
        if sent > max(evaluated, num_ctx) or (0 < evaluated < sent and await self._counts_cached_tokens(usage)):
            found = f"the server evaluated {evaluated or num_ctx} prompt tokens of about {sent} sent"
        elif abs(evaluated - num_ctx) <= 1:
            found = f"the server evaluated {evaluated} prompt tokens, all that its context holds"
        else:
            return []
        remedy = "Raise AI_LAB_CONTEXT_TOKENS if the model allows it, or shorten the conversation."
        return [f"{found}; the beginning of the conversation is lost to the model. {remedy}"]

    async def _counts_cached_tokens(self, usage: Usage) -> bool:
        if usage.cached_tokens is not None:
            return True
        try:
            major, minor = (await self._version()).split(".")[:2]
            return (int(major), int(minor)) >= _COUNTS_CACHED_TOKENS_SINCE
        except (LabError, ValueError):
            return False

    async def _version(self) -> str:
        """Return the server's version; for that no key is needed, and none is used."""
        async with self._request(with_key=False) as client:
            return await client.version()

    @contextlib.asynccontextmanager
    async def _request(self, model: str | None = None, *, with_key: bool = True) -> AsyncIterator[OllamaClient]:
        """Give the package's client for one request, and turn what it raises into errors of our tree."""
        key = await self.api_key() if with_key else None
        errors = self._errors.hiding(key)
        try:
            yield self._client.with_key(key)
        except ollama.ResponseError as error:
            status = error.status_code
            raise errors.from_answer(status, {}, str(error.error).encode(errors="replace"), model) from None
        except ConnectionError as error:
            cause = error.__context__  # the package hides httpx's error behind its own
            raise errors.from_httpx(
                cause if isinstance(cause, httpx.HTTPError) else httpx.ConnectError(str(error))
            ) from error
        except httpx.HTTPError as error:
            raise errors.from_httpx(error) from error
        except AddressRefused as error:
            raise errors.from_refusal(error) from None
        except (AttributeError, KeyError, TypeError, ValueError):  # what pydantic and json raise
            raise ProviderError(f"{self.name} sent an answer that is not in the shape of Ollama's API.") from None
