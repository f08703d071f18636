"""What is seen of a server that speaks OpenAI's API, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Self

import pytest

from ai_lab.benchmarks.targets import Address, Question
from ai_lab.benchmarks.targets.connection import Connections
from ai_lab.errors import AddressRefused, ProviderAuthFailed, ProviderError, ProviderUnavailable
from tests.benchmarks.asking import NS_PER_MS, ask, empty_record, gaps_ms, opened, until, written
from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply, text_reply, usage

KEY = "sk-test-0123456789abcdef"
MODELS = "/v1/models"


async def test_a_stamp_is_of_the_read_and_not_of_the_moment_somebody_looked() -> None:
    async with OpenAIServer() as server:
        server.script(CHAT, stream_reply(delta(content="a"), 0.05, delta(content="b"), 0.05, DONE))
        connections = Connections("The server", server.origin, None, timeout_seconds=5)
        async with connections.open(CHAT, b"{}", empty_record()) as answer:
            await asyncio.sleep(0.4)
            looked_ns = time.perf_counter_ns()
            stamps = [at_ns for at_ns, line in await answer.lines() if line]
        await connections.close()
    assert len(stamps) == 3
    assert min(gaps_ms(stamps)) >= 45
    assert (looked_ns - stamps[-1]) / NS_PER_MS >= 150


async def test_an_address_that_is_refused_is_not_connected_to() -> None:
    vetted: list[str] = []

    def vet(address: str) -> None:
        vetted.append(address)
        raise AddressRefused("not there")

    async with OpenAIServer() as server:
        for origin in (server.origin, server.origin.replace("127.0.0.1", "localhost")):  # one is not even resolved
            connections = Connections("The server", origin, None, timeout_seconds=5, vet=vet)
            with pytest.raises(ProviderUnavailable):
                await connections.fetch("GET", MODELS)
            await connections.close()
        assert server.connection_count == 0
    assert "127.0.0.1" in vetted


async def test_connections_are_kept() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        assert [(await ask(target)).connection_reused for _ in range(3)] == [True] * 3  # since the list of models
        assert server.connection_count == 1


async def test_a_kept_connection_that_was_closed_is_not_written_to() -> None:
    """The end of the connection is there, but the event loop had no time to see it."""
    with _Closing() as server:
        async with opened(server.base_url) as target:
            for _ in range(5):
                server.closed.wait(5)
                server.closed.clear()
                time.sleep(0.01)  # noqa: ASYNC251 - nobody shall look
                record = await ask(target)
                assert (record.status, record.connection_reused) == ("ok", False)


async def test_a_server_that_closes_when_it_is_asked_again_gets_new_connections() -> None:
    with _Closing(waits_for_more=True) as server:
        async with opened(server.base_url) as target:
            records = [await ask(target) for _ in range(6)]
    assert [(record.status, record.error_code) for record in records] == [
        ("error", "provider_unavailable"),
        *[("ok", None)] * 5,
    ]


class _Closing:
    """Closes every connection after an answer, at once or when the next request comes; runs in a thread."""

    def __init__(self, *, waits_for_more: bool = False) -> None:
        self.closed = threading.Event()
        self._waits_for_more = waits_for_more
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    said = connection.recv(65_536)
                    is_list = said.startswith(b"GET")
                    body = b'{"data": [{"id": "tiny"}]}' if is_list else b"".join(written(text_reply("a", "b")))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    if self._waits_for_more:
                        connection.recv(1)
                self.closed.set()


async def test_a_reset_in_mid_stream_keeps_what_had_come() -> None:
    server = _ResettingServer()
    async with server, opened(server.base_url) as target:
        record = await ask(target)
    assert (record.status, record.error_code, len(record.chunk_ns)) == ("aborted", "provider_stream_broken", 1)


class _ResettingServer(OpenAIServer):
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"models" in (head := await reader.readuntil(b"\r\n\r\n")):
            body = b'{"data": [{"id": "tiny"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
        assert b"chat" in head
        piece = delta(content="a")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(piece), piece))
        await asyncio.sleep(0.05)
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()


async def test_a_cancelled_request_says_so_and_lets_go_of_the_server() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(delta(content="a"), ending="hang"))
        record = empty_record()
        asking = asyncio.create_task(target.ask(Question("Hi", 2), record))
        await until(lambda: bool(record.chunk_ns))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.received(CHAT)[0].disconnected.wait(), 30)
    assert (record.status, record.error, len(record.chunk_ns)) == ("cancelled", None, 1)
    assert record.end_ns


async def test_an_answer_that_is_whole_stays_so_when_its_request_is_cancelled_afterwards() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(delta(content="a"), delta("length"), usage(1, 1), DONE, ending="hang"))
        record = empty_record()
        asking = asyncio.create_task(target.ask(Question("Hi", 1), record))
        await until(lambda: record.end_ns is not None)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (record.status, record.output_characters) == ("ok", 1)


async def test_a_server_that_is_not_there_is_told_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for protocol in ("auto", "openai", "ollama"):
        with pytest.raises(ProviderUnavailable, match=r"nothing listens there. Start it or correct its address"):
            async with opened(f"http://127.0.0.1:{port}", protocol):
                pass


async def test_a_server_that_goes_away_between_two_requests_is_told() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        await ask(target)
        await server.__aexit__()
        record = await ask(target)
        await server.__aenter__()
    assert (record.status, record.error_code) == ("error", "provider_unavailable")
    assert record.sent_ns is None


async def test_silence_counts_from_the_latest_read() -> None:
    async with OpenAIServer() as server, opened(server.base_url, timeout_seconds=0.3) as target:
        pieces: list[bytes | float] = [delta(content="a"), 0.1] * 6
        server.script(CHAT, stream_reply(*pieces, delta(content="b"), ending="hang"))
        record = await ask(target)
    assert (record.status, len(record.chunk_ns)) == ("timeout", 7)
    assert record.end_ns
    assert 290 <= (record.end_ns - record.chunk_ns[-1]) / NS_PER_MS < 2000


async def test_a_server_that_says_nothing_at_all_is_given_up() -> None:
    class Mute(OpenAIServer):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if b"models" in (head := await reader.readuntil(b"\r\n\r\n")):
                body = b'{"data": [{"id": "tiny"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                head = await reader.readuntil(b"\r\n\r\n")
            assert b"chat" in head
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            left.set()

    left = asyncio.Event()
    async with Mute() as server, opened(server.base_url, timeout_seconds=0.3) as target:
        record = await ask(target)
        await asyncio.wait_for(left.wait(), 30)
    assert (record.status, record.error_code, record.headers_ns) == ("timeout", "provider_timeout", None)
    assert record.sent_ns
    assert record.end_ns
    assert 290 <= (record.end_ns - record.sent_ns) / NS_PER_MS < 2000


async def test_something_that_speaks_no_http_is_told() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.invalid ESMTP ready\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ProviderError, match="no HTTP"):
            async with opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "openai"):
                pass


async def test_a_password_of_an_address_is_sent_and_not_shown() -> None:
    async with OpenAIServer() as server:
        url = server.base_url.replace("//", "//user:pass-word@")
        async with opened(url) as target:
            server.script(CHAT, json_reply({"error": {"message": "no"}}, status=500))
            record = await ask(target)
            assert (
                "pass-word"
                not in f"{record} {await target.describe()} {Address(protocol='auto', model='m', base_url=url)}"
            )
        assert {request.headers["authorization"] for request in server.requests} == {"Basic dXNlcjpwYXNzLXdvcmQ="}
        async with opened(url, api_key=KEY) as target:
            assert (await ask(target)).http_status == 500
        assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_a_key_is_sent_and_never_shown() -> None:
    async with OpenAIServer() as server:
        async with opened(server.base_url, api_key=KEY) as target:
            server.script(CHAT, json_reply({"error": {"message": f"bad key {KEY}"}}, status=401))
            record = await ask(target)
            about = await target.describe()
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
        assert record.error_code == "provider_auth_failed"
        assert KEY not in f"{record} {about} {target!r}"

        server.script(MODELS, json_reply({"error": {"message": f"bad key {KEY}"}}, status=401))
        with pytest.raises(ProviderAuthFailed) as refused:
            async with opened(server.base_url, api_key=KEY):
                pass
        assert KEY not in str(refused.value)


@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
async def test_an_address_may_end_with_v1_or_not(path: str) -> None:
    async with OpenAIServer() as server, opened(server.origin + path) as target:
        assert (await ask(target)).status == "ok"


async def test_an_api_below_another_path_is_found() -> None:
    class Deep(FakeServer):
        def default_reply(self, request: ReceivedRequest) -> Reply:
            if request.path == "/api/paas/v4/models":
                return json_reply({"data": [{"id": "tiny"}]})
            if request.path == "/api/paas/v4/chat/completions":
                return text_reply("a", "b")
            return super().default_reply(request)

    async with Deep() as server, opened(f"{server.origin}/api/paas/v4", "openai") as target:
        assert (await ask(target)).status == "ok"


async def test_a_server_without_a_list_of_models_is_asked_all_the_same() -> None:
    async with OpenAIServer() as server:
        server.script(MODELS, json_reply({"error": "no route"}, status=404))
        async with opened(server.base_url) as target:
            assert (await ask(target)).status == "ok"


async def test_a_line_without_end_is_bounded() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(b"data: " + b"x" * 11_000_000, ending="hang"))
        record = await ask(target)
    assert (record.status, record.error_code) == ("error", "provider_stream_broken")
    assert "more than 10 MB" in (record.error or "")
