"""Requests are counted by the template of their route, whatever becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from ai_lab.lab import Lab
from ai_lab.settings import Settings
from ai_lab.telemetry.prometheus.instruments import Instruments
from backend.app import create_app
from backend.measured import MeasuredRequests
from backend.middleware import RequestContext
from backend.sse import EventStream
from tests.backend.app_server import serve_app
from tests.connection import Connection
from tests.telemetry.scrape import Recorded, samples_of


class Half(Response):
    """An answer that dies in the middle."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("on purpose")


class Lingering(Response):
    """An answer whose maker stays until the connection is idle."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        while (await receive())["type"] != "http.disconnect":
            pass


def small_app(gone: asyncio.Event) -> FastAPI:
    """Return an application with every kind of route there is; ``gone`` is set when a stream's client leaves."""
    app = FastAPI()
    inner, outer = APIRouter(prefix="/keys"), APIRouter(prefix="/api/{version}")

    @inner.get("/{service}")
    @inner.get("/{service}/files/{path:path}")
    async def within(service: str) -> str:
        return service

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("on purpose")

    @app.get("/breaks")
    async def breaks() -> Half:
        return Half()

    @app.get("/lingers")
    async def lingers() -> Lingering:
        return Lingering()

    @app.post("/streams")
    async def streams(request: Request) -> EventStream:
        async def events() -> AsyncIterator[bytes]:
            await asyncio.sleep(0.1)
            yield b'data: "first"\n\n'
            if "endless" in request.query_params:
                await gone.wait()
            await asyncio.sleep(0.1)

        return EventStream(events(), gone.set)

    outer.include_router(inner)
    app.include_router(outer)
    app.mount("/assets", StaticFiles(directory=Path(__file__).parent))
    return app


async def counted(instruments: Instruments, name: str = "ai_lab_http_requests_total") -> dict[tuple[str, ...], float]:
    return {key: sample.value for key, sample in (await samples_of(instruments.registry)).get(name, {}).items()}


async def until(instruments: Instruments, name: str) -> dict[tuple[str, ...], float]:
    """Wait until there is a value: the end of a request is seen a moment after its answer."""
    for _ in range(500):
        if found := await counted(instruments, name):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} has no value")


@pytest.fixture
def instruments() -> Instruments:
    return Instruments(Recorded())


async def test_requests_are_counted_by_their_whole_template(instruments: Instruments) -> None:
    async with serve_app(MeasuredRequests(small_app(asyncio.Event()), instruments)) as url, Connection(url) as client:
        for method, path in (
            ("GET", "/api/v1/keys/mine"),
            ("GET", "/api/v2/keys/yours?all=1"),
            ("GET", "/api/v1/keys/mine/files/a/b/c"),
            ("PUT", "/api/v1/keys/mine"),
            ("GET", "/api/v1/keys/mine/"),
            ("GET", "/nowhere"),
            ("GET", "/%FF%0A../etc"),
            ("PROPFIND", "/nowhere"),
            ("GET", f"/assets/{Path(__file__).name}"),
            ("GET", "/assets/nothing"),
        ):
            await client.request(method, path)
    assert await counted(instruments) == {
        ("GET", "/api/{version}/keys/{service}", "200"): 2,
        ("GET", "/api/{version}/keys/{service}/files/{path}", "200"): 1,
        ("PUT", "/api/{version}/keys/{service}", "405"): 1,
        ("GET", "unmatched", "307"): 1,
        ("GET", "unmatched", "404"): 2,
        ("other", "unmatched", "404"): 1,
        ("GET", "/assets/{path}", "200"): 1,
        ("GET", "/assets/{path}", "404"): 1,
    }
    assert await counted(instruments, "ai_lab_http_requests_in_progress") == {(): 0}


@pytest.mark.parametrize("path", ["/fails", "/breaks"])
async def test_a_request_that_dies_counts_as_500(instruments: Instruments, path: str) -> None:
    app = small_app(asyncio.Event())
    app.add_middleware(MeasuredRequests, instruments=instruments)
    async with serve_app(app) as url, Connection(url) as client:
        with contextlib.suppress(OSError):  # the half answer is cut
            await client.request("GET", path)
        await until(instruments, "ai_lab_http_requests_total")
    assert await counted(instruments) == {("GET", path, "500"): 1}
    assert not await counted(instruments, "ai_lab_http_client_disconnects_total")


async def test_a_stream_has_a_first_byte_and_an_end(instruments: Instruments) -> None:
    async with serve_app(MeasuredRequests(small_app(asyncio.Event()), instruments)) as url, Connection(url) as client:
        assert [event.data async for event in client.stream("/streams", {})] == ["first"]
    [first] = (await counted(instruments, "ai_lab_http_time_to_first_byte_seconds_sum")).values()
    [whole] = (await counted(instruments, "ai_lab_http_request_duration_seconds_sum")).values()
    assert first >= 0.1
    assert whole >= first + 0.1
    assert not await counted(instruments, "ai_lab_http_client_disconnects_total")


async def test_a_client_that_leaves_is_counted(instruments: Instruments) -> None:
    gone = asyncio.Event()
    async with serve_app(MeasuredRequests(small_app(gone), instruments)) as url, Connection(url) as client:
        async for _ in client.stream("/streams?endless", {}):
            assert await counted(instruments, "ai_lab_http_requests_in_progress") == {(): 1}
            break
        client.close()
        assert await until(instruments, "ai_lab_http_client_disconnects_total") == {("/streams",): 1}
    assert gone.is_set()
    assert await counted(instruments) == {("POST", "/streams", "200"): 1}


async def test_who_has_the_whole_answer_has_not_left(instruments: Instruments) -> None:
    async with serve_app(MeasuredRequests(small_app(asyncio.Event()), instruments)) as url, Connection(url) as client:
        await client.request("GET", "/lingers")
        assert await until(instruments, "ai_lab_http_requests_total") == {("GET", "/lingers", "200"): 1}
    assert not await counted(instruments, "ai_lab_http_client_disconnects_total")


async def test_a_slow_request_leads_to_its_trace(instruments: Instruments) -> None:
    app = small_app(asyncio.Event())
    app.add_middleware(MeasuredRequests, instruments=instruments)
    app.add_middleware(RequestContext)
    async with serve_app(app) as url, Connection(url) as client:
        await client.request("GET", "/api/v1/keys/x", traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
    for name in ("ai_lab_http_request_duration_seconds_bucket", "ai_lab_http_time_to_first_byte_seconds_bucket"):
        buckets = (await samples_of(instruments.registry))[name].values()
        assert [bucket.exemplar.labels for bucket in buckets if bucket.exemplar] == [{"trace_id": "ab" * 16}]


async def test_every_path_of_the_description_is_a_label_once_it_is_called(
    instruments: Instruments, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, ollama_host="http://127.0.0.1:9")
    async with Lab.open(settings) as lab:
        app = create_app(lab)
        async with serve_app(MeasuredRequests(app, instruments)) as url, Connection(url) as client:
            for path, operations in app.openapi()["paths"].items():
                for method in operations:
                    address = re.sub(r"{\w+}", "x", path) + "?iterations=0"  # no model needs to be measured for this
                    await client.request(method.upper(), address, [])
    routes = {(method.lower(), route) for method, route, _ in await counted(instruments)}
    assert routes == {(method, path) for path, operations in app.openapi()["paths"].items() for method in operations}
