"""A small HTTP/1.1 client over one connection: so cheap that it never is what a measurement shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """A whole answer; header names are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    data: Any


class Connection:
    """One kept connection; it opens again by itself. Whatever breaks raises ``ConnectionError`` or ``OSError``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Send a request and return the whole answer."""
        status, received = await self._send(method, path, body, headers)
        content = b"".join([block async for block in self._body(received)])
        if received.get("connection") == "close":
            self.close()
        return Reply(status, received, content)

    async def stream(self, path: str, body: Any, **headers: str) -> AsyncIterator[Event]:
        """Post ``body`` and yield the events of the answer; an answer that is no stream is one event ``status``."""
        status, received = await self._send("POST", path, body, headers)
        if not received.get("content-type", "").startswith("text/event-stream"):
            content = b"".join([block async for block in self._body(received)])
            yield Event("status", {"status": status, "body": content.decode()})
            return
        rest = b""
        async for block in self._body(received):
            *events, rest = (rest + block).split(b"\n\n")
            for text in events:
                if not text.startswith(b":"):
                    yield _event(text)

    def close(self) -> None:
        """Close it at once; what is under way is cut."""
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=2**20)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}", f"Content-Length: {len(content)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        assert self._reader
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionResetError("the server closed the connection") from error
        first, *rest = head.decode("latin-1").rstrip().split("\r\n")
        return int(first.split(" ")[1]), {
            name.lower(): value for name, value in (line.split(": ", 1) for line in rest if ": " in line)
        }

    async def _body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        assert self._reader
        reader = self._reader
        try:
            if "content-length" in headers:
                yield await reader.readexactly(int(headers["content-length"]))
                return
            while size := int(await reader.readuntil(b"\r\n"), 16):
                yield (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionResetError("the server closed the connection in mid-answer") from error


def _event(text: bytes) -> Event:
    fields = dict(line.split(b": ", 1) for line in text.split(b"\n"))
    data = fields[b"data"]
    return Event(fields.get(b"event", b"").decode(), data.decode() if data == b"[DONE]" else json.loads(data))
