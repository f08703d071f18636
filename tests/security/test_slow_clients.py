"""Clients that send slowly, not at all, or read nothing cost the server little and others no time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from urllib.parse import urlsplit

import psutil
import pytest
import uvicorn

from ai_lab.lab import Lab
from ai_lab.settings import Settings
from backend.app import create_app
from backend.connection_limits import ConnectionLimits
from backend.protocol import limited_protocol
from tests.connection import Connection
from tests.fakes.openai_server import CHAT, OpenAIServer, delta, stream_reply
from tests.lab_server import _Server
from tests.server import ServerProcess

_QUICK = ConnectionLimits(
    head_seconds=0.3,
    silence_seconds=0.6,
    body_seconds=0.3,
    reader_seconds=0.5,
    rest_bytes=1_000_000,
    rest_seconds=0.5,
    connections=60,
    look_seconds=0.05,
)
_HEAD = b"POST /conversations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
_GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Socket:
    """A connection that sends what it is told to, and nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.opened_at = time.monotonic()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def drip(self, data: bytes, pause_seconds: float = 0.05) -> None:
        """Send a byte at a time until nobody listens."""
        with contextlib.suppress(ConnectionError):
            for index in range(len(data)):
                self._writer.write(data[index : index + 1])
                await self._writer.drain()
                await asyncio.sleep(pause_seconds)

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Read one answer: its status, and the body as JSON."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 30)).decode()
        length = next(int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:"))
        return int(head.split(" ")[1]), json.loads(await self._reader.readexactly(length))

    async def end(self) -> bytes:
        """Read until the server closes, and return what came."""
        try:
            return await asyncio.wait_for(self._reader.read(), 30)
        except ConnectionError:
            return b""

    @property
    def age(self) -> float:
        """Return the seconds since it was opened."""
        return time.monotonic() - self.opened_at


@contextlib.asynccontextmanager
async def _served(
    settings: Settings, limits: ConnectionLimits = _QUICK, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    async with Lab.open(settings) as lab:
        config = uvicorn.Config(create_app(lab), http=limited_protocol(limits), log_config=None, access_log=False)
        server = _Server(config)
        listening = socket.create_server((host, 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # what is not read soon stays in the server
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://{host}:{listening.getsockname()[1]}", server
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def _socket(url: str) -> AsyncIterator[Socket]:
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    try:
        yield Socket(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("slow")
    return Settings.model_validate(
        {"data_dir": folder, "database_url": f"sqlite+aiosqlite:///{folder / 'lab.sqlite'}", "rate_limits": False}
    )


async def test_who_is_too_slow_is_told_so_and_let_go(settings: Settings) -> None:
    """All at once on one server: each waits for its own limit."""
    async with _served(settings) as (url, _), contextlib.AsyncExitStack() as stack:

        async def opened() -> Socket:
            return await stack.enter_async_context(_socket(url))

        async def silent() -> None:
            connection = await opened()
            assert await connection.end() == b""
            assert 0.5 < connection.age < 3

        async def dripping(sent: bytes, status: int = 408) -> None:
            connection = await opened()
            dripping = asyncio.create_task(connection.drip(sent))
            got, problem = await connection.answer()
            assert got == status, problem
            assert problem["code"] == "request_timeout"
            assert 0.2 < connection.age < 3
            assert await connection.end() == b""
            await dripping

        async def line_breaks_alone() -> None:
            connection = await opened()
            dripping = asyncio.create_task(connection.drip(b"\r\n" * 60))
            assert (await connection.answer())[0] == 408
            await connection.end()
            await dripping

        async def quick_and_then_slow() -> None:
            connection = await opened()
            connection.send(_GET)
            assert (await connection.answer())[0] == 200
            await asyncio.sleep(0.5)  # longer than anything but a rest between requests may take
            connection.send(_GET)
            assert (await connection.answer())[0] == 200
            await connection.drip(_GET[:12], 0)
            assert (await connection.answer())[0] == 408

        async def waiting_for_leave_to_send() -> None:
            connection = await opened()
            connection.send(_HEAD + b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n")
            assert (await asyncio.wait_for(connection._reader.readline(), 30)) == b"HTTP/1.1 100 Continue\r\n"
            await connection._reader.readline()
            assert (await connection.answer())[0] == 408

        await asyncio.gather(
            silent(),
            dripping(b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 100),
            dripping(_HEAD + b"Content-Length: 400\r\n\r\n" + b" " * 400),
            dripping(_HEAD[:-2] + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 80),
            line_breaks_alone(),
            quick_and_then_slow(),
            waiting_for_leave_to_send(),
        )


async def test_readers_that_stall_are_let_go_and_their_models_stopped(settings: Settings, *, thorough: bool) -> None:
    count = 50 if thorough else 20
    async with OpenAIServer() as model, contextlib.AsyncExitStack() as stack:
        model.script(CHAT, stream_reply(*[delta(content="word " * 1000)] * 100, ending="hang"))
        chosen = settings.model_copy(
            update={"servers": Settings.model_validate({"servers": {"m": model.base_url}}).servers}
        )
        url, server = await stack.enter_async_context(_served(chosen))
        body = json.dumps({"message": "Go on.", "model": "m/tiny", "stream": True}).encode()
        for _ in range(count):
            client = socket.socket()
            stack.callback(client.close)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", int(url.rpartition(":")[2])))
            client.send(_HEAD.replace(b"/conversations", b"/chat") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        most = 0
        for _ in range(count):
            await model.next_request()
        async with asyncio.timeout(60):
            while server.server_state.tasks or model._handlers:
                most = max([most, *(one.transport.get_write_buffer_size() for one in server.server_state.connections)])
                await asyncio.sleep(0.02)
        assert 65_536 < most < 1_000_000  # they did stall, and little was kept for each
        assert not server.server_state.connections


async def test_slow_clients_do_not_keep_others_waiting(attacked: ServerProcess) -> None:
    """A real server with its real limits: 200 clients that never end their headers, and 50 that say nothing."""
    before = psutil.Process(attacked.pid).memory_info().rss
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(_socket(attacked.url)) for _ in range(250)]
        for slow in sockets[:200]:
            slow.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 1000)
        async with Connection(attacked.url) as connection:
            for _ in range(20):
                for slow in sockets[:200]:
                    slow.send(b"a")
                async with asyncio.timeout(30):
                    await connection.request("GET", "/health")
    assert psutil.Process(attacked.pid).memory_info().rss - before < 50_000_000


async def test_one_connection_too_many_is_refused_at_once(settings: Settings) -> None:
    async with _served(settings) as (url, server), contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            (await stack.enter_async_context(_socket(url))).send(b"G")
        await _until(lambda: len(server.server_state.connections) == 60)
        async with _socket(url) as refused:
            status, problem = await refused.answer()
            assert (status, problem["code"]) == (503, "too_many_connections")
            assert await refused.end() == b""
        await _until(lambda: not server.server_state.connections)  # those that said too little go
        async with Connection(url) as connection:
            assert (await connection.request("GET", "/health/live")).status == 200


async def test_another_machine_gets_a_part_of_the_connections(settings: Settings) -> None:
    addresses = [
        one.address for every in psutil.net_if_addrs().values() for one in every if one.family == socket.AF_INET
    ]
    host = next((address for address in addresses if not address.startswith("127.")), None)
    if host is None:
        pytest.skip("this machine has no other address than 127.0.0.1")
    few = replace(_QUICK, connections_per_address=3)
    for limits, count in ((few, 3), (replace(few, proxies=["192.0.2.1", f"{host}/32"]), 6)):
        async with _served(settings, limits, host) as (url, server), contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(_socket(url)) for _ in range(6)]
            for one in sockets:
                one.send(_GET)
            statuses = [(await one.answer())[0] for one in sockets]
            assert statuses == [200] * count + [503] * (6 - count)
            assert len(server.server_state.connections) == count


async def test_a_body_that_goes_on_after_its_answer_is_read_for_a_while_only(settings: Settings) -> None:
    """So long as the client may still be about to read the answer; what it sends is dropped."""
    head = b"PUT /conversations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    async with _served(settings) as (url, _), _socket(url) as slow:
        slow.send(head + b"30000\r\n\r\n")
        assert (await slow.answer())[0] == 405
        dripping = asyncio.create_task(slow.drip(b" " * 100))
        assert await slow.end() == b""
        await dripping
    patient = replace(_QUICK, head_seconds=60, body_seconds=60, silence_seconds=60, rest_seconds=60)
    async with _served(settings, patient) as (url, _), _socket(url) as short, _socket(url) as long:
        short.send(head + b"500000\r\n\r\n" + b" " * 500_000 + _GET)
        assert (await short.answer())[0] == 405
        assert (await short.answer())[0] == 200  # nothing was lost, so the connection can be used
        long.send(head + b"3000000\r\n\r\n" + b" " * 2_900_000)
        assert (await long.answer())[0] == 405
        assert await long.end() == b""


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - uvicorn tells nobody that a connection has ended
            await asyncio.sleep(0.02)
