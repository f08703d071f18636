"""How we talk HTTP to a model service: one way to connect, and answers read by lines with a bound on memory."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import httpx
from pydantic_core import from_json

from ai_lab.errors import StreamBroken

#: The longest line a model service may send; a whole answer with an image in it is far below.
LINE_LIMIT_BYTES = 10_000_000

_CONNECT_TIMEOUT_SECONDS = 5.0
#: Common servers drop a quiet connection after 5 s; we let go of it first, so that no request meets a closing one.
KEEPALIVE_SECONDS = 3.0


def client_options(url: str, timeout_seconds: float) -> dict[str, Any]:
    """Return the arguments for ``httpx.AsyncClient``.

    Redirects are not followed, for they would carry the prompt to a host nobody configured. Proxies of the environment
    are for other machines only. For plain http the certificates are not loaded: that takes 20 ms.

    Args:
        url: the address of the service.
        timeout_seconds: the longest silence.
    """
    parsed = httpx.URL(url)
    return {
        "timeout": timeouts(timeout_seconds),
        "limits": httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
        "trust_env": not _is_loopback(parsed.host),
        "verify": True if parsed.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        "follow_redirects": False,
    }


def timeouts(silence_seconds: float) -> httpx.Timeout:
    """Return the limits of a request that may be silent for so long; connecting has one of its own."""
    return httpx.Timeout(silence_seconds, connect=_CONNECT_TIMEOUT_SECONDS)


async def send(
    sending_of: Callable[[httpx.Request], Coroutine[Any, Any, httpx.Response]], request: httpx.Request
) -> httpx.Response:
    """Send a request over connections of httpx's own; a cancelled one leaves none behind.

    httpx forgets a connection that is cancelled between being made and being used, and it stays open for ever. So a
    cancellation waits until the request is on its way, which takes the connect timeout at most.
    """
    on_its_way = asyncio.Event()

    async def trace(event: str, _info: object) -> None:
        if event.endswith("send_request_headers.started"):
            on_its_way.set()

    request.extensions["trace"] = trace
    sending = asyncio.create_task(sending_of(request))
    try:
        await asyncio.wait({sending})
    except asyncio.CancelledError:
        waiting = asyncio.create_task(on_its_way.wait())
        await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        sending.cancel()
        await asyncio.wait({sending})
        if not sending.cancelled() and sending.exception() is None:
            await sending.result().aclose()
        raise
    return sending.result()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class LineSplitter:
    r"""Cut blocks of bytes into lines at ``\n`` alone.

    Text has other line ends (U+0085, U+2028) that are ordinary characters inside JSON, so ``str.splitlines`` and what
    is built on it cut lines in two. Working on bytes also keeps a character that is split over two blocks whole.
    """

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._held_bytes = 0

    def feed(self, block: bytes) -> list[bytes]:
        r"""Return the lines that ``block`` completes; they may end in ``\r``.

        Raises:
            StreamBroken: a line is longer than the limit.
        """
        lines = block.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts.clear()
            self._held_bytes = 0
        if rest:
            self._parts.append(rest)
            self._held_bytes += len(rest)
        if self._held_bytes > self._limit_bytes or any(len(line) > self._limit_bytes for line in lines):
            raise StreamBroken(f"The model service sent a line of more than {self._limit_bytes // 1_000_000} MB.")
        return lines

    def end(self) -> list[bytes]:
        """Return the last line if it came without its end."""
        return [b"".join(self._parts)] if self._parts else []


async def read_lines(response: httpx.Response) -> AsyncGenerator[list[bytes], None]:
    """Yield the lines that arrive, those of one network read together."""
    splitter = LineSplitter()
    async for block in response.aiter_bytes():
        if lines := splitter.feed(block):
            yield lines
    if lines := splitter.end():
        yield lines


async def read_body(response: httpx.Response, limit_bytes: int) -> bytes:
    """Return the body up to ``limit_bytes``; what is beyond is left unread."""
    parts: list[bytes] = []
    left = limit_bytes
    async for block in response.aiter_bytes():
        parts.append(block[:left])
        left -= len(parts[-1])
        if not left:
            break
    return b"".join(parts)


def parse_object(line: bytes) -> dict[str, Any]:
    r"""Return the JSON object in ``line``, with nothing in it that UTF-8 cannot hold.

    A service that cuts its text in the middle of a surrogate pair sends half of it as ``\ud83d``; Python would accept
    that and fail later, when the text is stored. Such a half becomes U+FFFD.

    Raises:
        ValueError: it is not valid JSON in UTF-8, or not an object.
    """
    try:
        value = from_json(line)  # for each piece of each answer: a third of what ``json.loads`` takes
    except ValueError:
        if b"\\ud" not in line and b"\\uD" not in line:
            raise
        value = _with_whole_characters(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  # one kind of error for everything that is not as it should be
    return value


def _with_whole_characters(line: bytes) -> Any:
    try:
        text = json.dumps(json.loads(line.decode()), ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        return json.loads(text.decode("utf-16-le", "replace"))
    except RecursionError:
        raise ValueError("nested too deep") from None
