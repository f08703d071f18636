"""The ``ollama`` package's client, with what a long-running service needs on top."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import ollama

from ai_lab.errors import InvalidSettings
from ai_lab.providers.http_client import client_options, send
from ai_lab.providers.http_service import encode_json
from ai_lab.providers.ollama_address import ollama_address
from ai_lab.providers.outbound import Outbound


class OllamaClient(ollama.AsyncClient):
    """The package's client; its lists and embeddings are used as they are.

    Chats go over its connection but in our own words, because the package's ``chat`` drops nested parts of a tool's
    schema, opens a local file if an image's text is a path, cuts lines at U+0085, and leaves out
    ``prompt_eval_cached_count``. The key is ours to give with each request: the package would send what the
    environment says to every address.

    Raises:
        InvalidSettings: ``host`` is no address.
    """

    def __init__(self, host: str, timeout_seconds: float) -> None:
        try:
            url = ollama_address(host)
            transport = Outbound().transport(url, is_local=True)
            super().__init__(url, **client_options(url, timeout_seconds), transport=transport)
        except (ValueError, httpx.InvalidURL):
            raise InvalidSettings(f"OLLAMA_HOST is no address: {host!r}. Write it like 127.0.0.1:11434.") from None
        self._client.headers.pop("authorization", None)
        self._headers: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The server's address."""
        return str(self._client.base_url).rstrip("/")

    def with_key(self, key: str | None) -> OllamaClient:
        """Return a client for one request, over the same connections, that sends ``key``."""
        if key is None:
            return self
        keyed = copy.copy(self)
        keyed._headers = {"Authorization": f"Bearer {key}"}  # noqa: SLF001 - of this class
        return keyed

    @asynccontextmanager
    async def open_chat(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """Send a chat; the answer's body is unread, whatever its status."""
        content = encode_json(body)
        request = self._client.build_request("POST", "/api/chat", content=content, headers=self._headers)
        response = await send(partial(self._client.send, stream=True), request)
        try:
            yield response
        finally:
            await response.aclose()

    async def version(self) -> str:
        """Return the server's version."""
        answer = await self._request_raw("GET", "/api/version")
        return str(answer.json()["version"])

    async def _request_raw(self, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send what the package asks for, with the key."""
        answer: httpx.Response = await super()._request_raw(*args, **kwargs, headers=self._headers)  # type: ignore[no-untyped-call]  # the package's own
        return answer
