"""Each line of a request has its ids, in streams and in tasks that go on, and no other one's; over real connections."""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp

from ai_lab.logging import SlowOperations, request_ids
from backend.middleware import RequestContext
from tests.connection import Connection

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_seen: list[str | None] = []


def _request_id() -> str | None:
    ids = request_ids.get()
    return ids.request_id if ids else None


def _app() -> FastAPI:  # noqa: C901 - one route per case
    app = FastAPI()
    app.state.tasks = set()

    @app.get("/ids/{_name}")
    async def ids(_name: str) -> list[str]:
        await asyncio.sleep(0.01)
        return list(request_ids.get() or ())

    @app.get("/thread")
    def thread() -> list[str]:
        return list(request_ids.get() or ())

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            for _ in range(5):
                await asyncio.sleep(0.01)
                yield b'event: id\ndata: "%s"\n\n' % str(_request_id()).encode()

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/goes-on")
    async def goes_on() -> None:
        async def later() -> None:
            await asyncio.sleep(0.05)
            _seen.append(_request_id())

        app.state.tasks.add(asyncio.create_task(later()))

    @app.get("/slow-stream")
    async def slow_stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.sleep(0.2)
            yield b"last"

        return StreamingResponse(parts())

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(0.2)

    @app.get("/fails")
    async def fails() -> None:
        raise ValueError("on purpose")

    @app.get("/metrics/prometheus")
    async def probe() -> None:
        pass

    app.add_middleware(RequestContext, slow=SlowOperations(100))
    return app


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    app: ASGIApp = _app()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server._serve([listening]))
    async with Connection(f"http://127.0.0.1:{listening.getsockname()[1]}") as connection:
        yield connection
    server.should_exit = True
    await serving


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def _fields(log: pytest.LogCaptureFixture, logger: str) -> list[dict[str, object]]:
    return [record.__dict__ for record in log.records if record.name == logger]


@pytest.mark.parametrize(
    ("traceparent", "is_kept"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", True),
        (f"00-{TRACE}-00f067aa0ba902b7-00", True),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings", True),
        (f"00-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings", False),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-00f067aa0ba902b7", False),
        (f"00-{TRACE}\tx-00f067aa0ba902b7-01", False),
        ("", False),
        ("x" * 10_000, False),
    ],
)
async def test_the_trace_of_the_client_goes_on_where_it_is_well_formed(
    connection: Connection, traceparent: str, is_kept: bool
) -> None:
    reply = await connection.request("GET", "/ids/x", traceparent=traceparent)
    request_id, trace_id = reply.json()
    assert reply.headers["x-request-id"] == request_id
    assert (trace_id == TRACE) is is_kept
    assert re.fullmatch("[0-9a-f]{32}", trace_id)
    assert is_kept or trace_id not in traceparent.lower()


async def test_two_traces_are_none() -> None:
    headers = [("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")] * 2
    async with httpx.AsyncClient(transport=httpx.ASGITransport(_app()), base_url="http://lab") as client:
        assert (await client.get("/ids/x", headers=headers)).json()[1] != TRACE


async def test_the_ids_end_with_the_answer_where_server_and_caller_share_a_context() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(_app()), base_url="http://lab") as client:
        await client.get("/ids/x")
    assert request_ids.get() is None


async def test_ids_are_right_in_threads_streams_and_tasks_that_go_on(connection: Connection) -> None:
    assert (await connection.request("GET", "/thread", x_request_id="t1")).json()[0] == "t1"
    assert [e.data async for e in connection.stream("/stream", {}, x_request_id="s1")] == ["s1"] * 5
    _seen.clear()
    await connection.request("GET", "/goes-on", x_request_id="g1")
    await connection.request("GET", "/ids/x", x_request_id="other")
    await asyncio.sleep(0.1)
    assert _seen == ["g1"]


async def test_no_request_has_ids_of_another_one(connection: Connection) -> None:
    first, second = [(await connection.request("GET", "/ids/x", x_request_id=name)).json() for name in ("", "")]
    assert first[0] != second[0]
    assert first[1] != second[1]
    url = f"http://{connection._host}:{connection._port}"

    async def ask(name: str) -> None:
        async with Connection(url) as own:
            for number in range(10):
                reply = await own.request("GET", "/ids/x", x_request_id=f"{name}.{number}")
                assert reply.json()[0] == f"{name}.{number}"

    await asyncio.gather(*(ask(str(number)) for number in range(20)))
    assert request_ids.get() is None


async def test_the_access_log_says_what_was_asked_and_what_was_sent(
    connection: Connection, log: pytest.LogCaptureFixture
) -> None:
    reply = await connection.request("GET", "/ids/a%0Ab?token=CANARY")
    (entry,) = _fields(log, "ai_lab.access")
    named = ("levelname", "msg", "method", "path", "status", "bytes_sent", "client")
    assert [entry[name] for name in named] == [
        *("INFO", "request", "GET", "/ids/a%0Ab", 200),
        *(len(reply.body), "127.0.0.1"),
    ]
    assert isinstance(entry["duration_ms"], float)
    assert entry["duration_ms"] >= 10


async def test_probes_are_not_heard_and_failures_are(connection: Connection, log: pytest.LogCaptureFixture) -> None:
    await connection.request("GET", "/metrics/prometheus")
    await connection.request("GET", "/fails", x_request_id="f1")
    levels = [(entry["path"], entry["status"], entry["levelname"]) for entry in _fields(log, "ai_lab.access")]
    assert levels == [("/metrics/prometheus", 200, "DEBUG"), ("/fails", 500, "WARNING")]


async def test_slow_is_what_lets_its_first_byte_wait(connection: Connection, log: pytest.LogCaptureFixture) -> None:
    assert (await connection.request("GET", "/slow-stream")).body == b"firstlast"
    await connection.request("GET", "/slow")
    (entry,) = _fields(log, "ai_lab.slow")
    assert (entry["kind"], entry["operation"]) == ("http", "GET /slow")
