"""Requests that are too large, too deep or too many at once are refused before they cost much."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest

from tests.connection import Connection
from tests.server import ServerProcess

_POST = b"POST /conversations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
_GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def _opened(server: ServerProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode()
    length = next(int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:"))
    return int(head.split(" ")[1]), json.loads(await reader.readexactly(length))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nX-Long: " + b"a" * 1_000_000,
        _GET + b"X-Long: " + b"a" * 66_000 + b"\r\n\r\n",
        _GET + b"".join(b"X-%d: a\r\n" % number for number in range(12_000)) + b"\r\n",
        b"GET /" + b"a" * 70_000,
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X-Trailer: a\r\n" * 10_000,
    ],
    ids=["unended", "one", "many", "unended address", "address", "trailers"],
)
async def test_headers_that_are_too_large_are_refused(attacked: ServerProcess, head: bytes) -> None:
    async with _opened(attacked) as (reader, writer):
        writer.write(head)
        status, problem = await _answer(reader)
        if not head.startswith(_POST):  # there, the request was whole, and its answer may be first
            assert (status, problem["code"]) == (431, "headers_too_large")
            assert problem["request_id"]
        assert await asyncio.wait_for(reader.read(), 30) is not None


async def test_headers_of_60_kib_are_fine_and_trailers_are_dropped(attacked: ServerProcess) -> None:
    async with _opened(attacked) as (reader, writer):
        writer.write(_GET + b"X-Long: " + b"a" * 60_000 + b"\r\n\r\n")
        assert (await _answer(reader))[0] == 200
        trailer = b"Origin: https://evil.example\r\nExpect: 100-continue\r\n"
        writer.write(_POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + trailer + b"\r\n")
        assert (await _answer(reader))[0] == 201


@pytest.mark.parametrize(
    ("path", "size"), [("/conversations", 10 * 1024**3), ("/chat", 33 * _MIB), ("/v1/embeddings", 33 * _MIB)]
)
async def test_a_body_that_says_it_is_too_large_is_not_read(attacked: ServerProcess, path: str, size: int) -> None:
    head = _POST.replace(b"/conversations", path.encode()) + b"Content-Length: %d\r\n" % size
    async with _opened(attacked) as (reader, writer):
        writer.write(head + b"\r\n")  # and no byte of it is ever sent
        status, body = await _answer(reader)
        assert status == 413
        assert "32 MiB" in json.dumps(body)
    async with _opened(attacked) as (reader, writer):
        writer.write(head + b"Expect: 100-continue\r\n\r\n")
        assert (await _answer(reader))[0] == 413  # and not 100


@pytest.mark.parametrize("path", ["/api-keys", "/api-keys/openai/test"])
async def test_keys_are_small(attacked: ServerProcess, path: str) -> None:
    async with Connection(attacked.url) as connection:
        refused = await connection.request("POST", path, {"api_key": "sk-CANARY" + "a" * 70_000})
        assert (refused.status, refused.json()["code"]) == (413, "content_too_large")
        assert b"CANARY" not in refused.body


async def test_an_endless_body_is_cut_at_the_limit(attacked: ServerProcess) -> None:
    before = psutil.Process(attacked.pid).memory_info().rss
    async with _opened(attacked) as (reader, writer):
        writer.write(_POST + b"Transfer-Encoding: chunked\r\n\r\n")
        block, sent = b"100000\r\n" + b" " * _MIB + b"\r\n", 0
        answering = asyncio.create_task(_answer(reader))
        with contextlib.suppress(ConnectionError):
            while sent < 400 and not writer.is_closing():  # MiB
                writer.write(block)
                await writer.drain()
                sent += 1
        assert (await answering)[0] == 413
        assert 32 <= sent < 400  # and the connection was closed
    assert psutil.Process(attacked.pid).memory_info().rss - before < 150 * _MIB


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x-anything"])
def test_compressed_bodies_are_not_taken(http: httpx.Client, coding: str) -> None:
    for path in ("/conversations", "/chat", "/v1/embeddings", "/api-keys"):
        refused = http.post(
            path, content=b"{}", headers={"content-type": "application/json", "content-encoding": coding}
        )
        assert refused.status_code == 415
    plain = {"content-type": "application/json", "content-encoding": "identity"}
    assert http.post("/conversations", content=b"{}", headers=plain).status_code == 201


_DEEP = {
    "unended": "[" * 500_000,
    "lists": "[" * 500_000 + "]" * 500_000,
    "objects": '{"message":' * 500_000 + "1" + "}" * 500_000,
    "inside": '{"message": "hello", "options": ' + "[" * 500_000 + "]" * 500_000 + "}",
    "number": '{"message": ' + "9" * 1_000_000 + "}",
}


@pytest.mark.parametrize("body", _DEEP.values(), ids=_DEEP)
@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions", "/agents/a/state"])
def test_json_of_any_depth_costs_little(attacked: ServerProcess, http: httpx.Client, path: str, body: str) -> None:
    spent = _cpu_seconds(attacked)
    method = "PUT" if path.startswith("/agents") else "POST"
    answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}, answer.text[:200]
    assert _cpu_seconds(attacked) - spent < 2


async def test_many_requests_sent_at_once_wait_in_a_short_queue(attacked: ServerProcess) -> None:
    async with _opened(attacked) as (reader, writer):
        writer.write((_GET + b"\r\n") * 3)
        for _ in range(3):
            assert (await _answer(reader))[0] == 200
        writer.write((_GET + b"\r\n") * 3000)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.read(), 30)
    async with Connection(attacked.url) as connection:
        assert (await connection.request("GET", "/health/live")).status == 200


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"SSH-2.0-x\r\n", b"GET * HTTP/9.9\r\n\r\n"]
)
async def test_what_is_no_http_gets_problem_details(attacked: ServerProcess, sent: bytes) -> None:
    async with _opened(attacked) as (reader, writer):
        writer.write(sent)
        status, problem = await _answer(reader)
        assert (status, problem["code"]) == (400, "invalid_request")
        assert await asyncio.wait_for(reader.read(), 30) == b""


async def test_other_protocols_are_not_spoken(attacked: ServerProcess) -> None:
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n\r\n"
    )
    async with _opened(attacked) as (reader, writer):
        writer.write(_GET + upgrade)
        assert (await _answer(reader))[0] == 200  # as if it had not asked
        writer.write(_GET + b"\r\n")
        with contextlib.suppress(asyncio.IncompleteReadError):  # or the connection has ended
            assert (await _answer(reader))[0] in {200, 400}


def _cpu_seconds(server: ServerProcess) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system
