"""The ``ollama`` package's client, with what a long-running service needs on top."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import ollama

from ai_lab.errors import InvalidSettings
from ai_lab.providers.http_client import client_options, send
from ai_lab.providers.http_service import encode_json

#: What a server listens on when it listens everywhere, and where it is then reached.
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # replaced, not bound


class OllamaClient(ollama.AsyncClient):
    """The package's client; its address, key, lists and embeddings are used as they are.

    Chats go over its connection but in our own words, because the package's ``chat`` drops nested parts of a tool's
    schema, opens a local file if an image's text is a path, cuts lines at U+0085, and leaves out
    ``prompt_eval_cached_count``.

    Raises:
        InvalidSettings: ``host`` is no address.
    """

    def __init__(self, host: str, timeout_seconds: float) -> None:
        host = _reachable(host)
        try:
            options = client_options(_with_scheme(host), timeout_seconds)
            super().__init__(host, **options)
        except (ValueError, httpx.InvalidURL):
            raise InvalidSettings(f"OLLAMA_HOST is no address: {host!r}. Write it like 127.0.0.1:11434.") from None

    @property
    def address(self) -> str:
        """The server's address."""
        return str(self._client.base_url).rstrip("/")

    @property
    def key(self) -> str | None:
        """The key that the package sends (``OLLAMA_API_KEY``), so that no text ever shows it."""
        return cast("str", self._client.headers.get("authorization", "")).removeprefix("Bearer ") or None

    @asynccontextmanager
    async def open_chat(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """Send a chat; the answer's body is unread, whatever its status."""
        response = await send(self._client, self._client.build_request("POST", "/api/chat", content=encode_json(body)))
        try:
            yield response
        finally:
            await response.aclose()

    async def version(self) -> str:
        """Return the server's version."""
        answer = await self._request_raw("GET", "/api/version")  # type: ignore[no-untyped-call]  # the package's own
        return str(answer.json()["version"])


def _reachable(host: str) -> str:
    host = host.strip().strip("\"'")
    for everywhere, here in _ANYWHERE.items():
        if urlsplit(_with_scheme(host)).netloc.rpartition("@")[2].startswith(everywhere):
            return host.replace(everywhere, here, 1)
    return host or "127.0.0.1"


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"http://{host}"
