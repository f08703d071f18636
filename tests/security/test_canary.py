"""A server that logs everything fails in every way with secrets in its hands; then its traces are searched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply
from tests.security.canary import files_with_secrets, holds_secret, new_secret
from tests.security.operations import operations
from tests.server import ServerProcess

#: A plan that takes a few seconds, so that its measuring process can be looked at.
PLAN = {"arms": [{"model": "echo/echo"}], "load": {"mode": "closed", "requests": 400}, "warmup": 0, "idle_seconds": 0}


class Telltale(FakeServer):
    """A model server that repeats the key it was sent wherever a server can repeat one; ``said`` chooses how."""

    def __init__(self) -> None:
        super().__init__()
        self.said = "refused"
        self.away = ""

    def default_reply(self, request: ReceivedRequest) -> Reply:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        told = {"error": {"message": f"Incorrect API key provided: {key}", "param": key, "code": f"key={key}"}}
        replies = {
            "refused": json_reply(told, 401, www_authenticate=f'Bearer error="{key}"'),
            "forbidden": json_reply(told, 403),
            "failed": json_reply([key, {key: key}], 500),
            "no quota": json_reply(told, 429, retry_after="0"),
            "moved": Reply([], 307, {"location": f"{self.away}/{key}?key={key}"}),
            "no json": Reply([f"<html>{key}</html>".encode()], 200, {"content-type": "text/html"}),
            "cut": Reply([b'data: {"choices": [{"delta": {"content": "' + key.encode()], 200, ending="cut"),
            "stream": Reply(
                [f'data: {{"error": {{"message": "{key}"}}}}\n\n'.encode()],
                200,
                {"content-type": "text/event-stream"},
            ),
            "silent": Reply([], 0, ending="cut"),
        }
        return replies[self.said]


WAYS = ("refused", "forbidden", "failed", "no quota", "moved", "no json", "cut", "stream", "silent")


@pytest.fixture
async def telltale() -> AsyncIterator[Telltale]:
    async with Telltale() as telltale:
        yield telltale


@pytest.fixture(scope="module")
def environment_secret() -> str:
    return new_secret("sk-ant-api03-")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment_secret: str) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("traces")
    settings = {
        "AI_LAB_DEFAULT_MODEL": "echo/echo",
        "AI_LAB_CONFIG_DIR": str(folder / "config"),
        "AI_LAB_ALLOWED_ADDRESSES": "127.0.0.1",
        "AI_LAB_RATE_LIMITS": "false",
        "AI_LAB_LOG_FILE": "lab.log",
        "AI_LAB_LOG_FORMAT": "json",
        "AI_LAB_SLOW_OPERATION_MS": "0.001",
        "LOG_LEVEL": "DEBUG",
        "ANTHROPIC_API_KEY": environment_secret,
    }
    with ServerProcess(folder / "data", settings, is_anew=True) as server:  # /proc shows what it was started with
        yield server


def _environ(process: psutil.Process) -> bytes:
    return json.dumps(process.environ()).encode()


async def test_no_trace_of_a_secret_is_left(server: ServerProcess, telltale: Telltale, environment_secret: str) -> None:
    seen: list[httpx.Response] = []
    async with Telltale() as away, httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        telltale.away = away.origin

        async def call(method: str, path: str, **arguments: Any) -> httpx.Response:
            answer = await http.request(method, path, **arguments)
            seen.append(answer)
            return answer

        secrets = {label: new_secret("") for label in ("default", "second", "third")}
        base_url = f"{telltale.origin}/v1"
        for label, secret in secrets.items():
            body = {"service_name": "own", "api_key": secret, "base_url": base_url, "label": label}
            assert (await call("POST", "/api-keys", json=body)).status_code == 201
        for way in WAYS:
            telltale.said = way
            await call("POST", "/api-keys/own/test?label=default")
            await call("POST", "/api-keys/own/test", json={"api_key": new_secret(""), "base_url": base_url})
            for stream in (False, True):
                message = {"message": "hello", "model": "own/m", "stream": stream}
                await call("POST", "/chat", json=message)
                completion = {"model": "own/m", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
                await call("POST", "/v1/chat/completions", json=completion)
            await call("POST", "/v1/embeddings", json={"model": "own/m", "input": "x"})
        assert telltale.requests
        used = [request for request in telltale.requests if "CANARY" in request.headers.get("authorization", "")]
        assert len(used) > len(WAYS), "the secrets were in nobody's hands"
        assert away.requests == [], "a redirect was followed"
        await _change_everything(call, base_url, secrets["second"])
        run = (await call("POST", "/benchmarks", json=PLAN)).json()
        assert environment_secret.encode() in _environ(psutil.Process(server.pid))  # as the user chose
        children = await _children(server)
        assert children
        for arguments, environ in children:
            assert not holds_secret(arguments), arguments
            assert not holds_secret(environ)
        await call("DELETE", f"/benchmarks/{run['id']}")
        with httpx.Client(base_url=server.url, timeout=60) as listing:
            paths = [path for _, path in operations(listing, "get") if not path.endswith("/events")]
        seen += [await http.get(path) for path in paths]
    for answer in seen:
        assert not holds_secret(answer.content), (answer.request.method, answer.url)
        assert not holds_secret(repr(answer.headers.raw).encode()), answer.url
    assert server.stop() == 0
    assert "CANARY" not in server.log
    assert files_with_secrets(server.data_dir.parent) == []


async def _change_everything(call: Any, base_url: str, secret: str) -> None:
    """Do with keys whatever can be done, well and badly."""
    again = {"service_name": "own", "api_key": secret, "base_url": base_url, "label": "fourth"}
    assert (await call("POST", "/api-keys", json=again)).status_code == 409
    assert (await call("POST", "/api-keys", json=again | {"label": "second"})).status_code == 200
    refused = again | {"api_key": f"{secret} {secret}"}
    assert (await call("POST", "/api-keys", json=refused)).status_code == 422
    assert (await call("POST", "/api-keys", json=again | {"base_url": f"http://{secret}@x/"})).status_code == 400
    assert (await call("POST", "/api-keys/rotate")).status_code == 202
    assert (await call("POST", "/api-keys/rekey")).status_code == 200
    renamed = await call("PATCH", "/api-keys/own?label=third", json={"label": "renamed"})
    assert renamed.status_code == 200, renamed.text
    moved = await call("PATCH", "/api-keys/own?label=renamed", json={"base_url": "http://127.0.0.1:9/v1"})
    assert moved.json()["key"]["state"] == "needs_reentry"
    assert (await call("DELETE", "/api-keys/own?label=second")).status_code == 200
    assert (await call("DELETE", "/api-keys/own?label=second")).status_code == 404
    assert (await call("POST", "/api-keys/reset", json={"i_know": True})).status_code >= 400  # it is open


async def _children(server: ServerProcess) -> list[tuple[bytes, bytes]]:
    """Return arguments and environment of all processes that the server has started, once there is one."""
    found: list[tuple[bytes, bytes]] = []
    for _ in range(200):
        for child in server.children():
            try:
                if child.cmdline() == psutil.Process(server.pid).cmdline():
                    continue  # forked this moment, it is still the server's own image
                found.append((json.dumps(child.cmdline()).encode(), _environ(child)))
            except psutil.Error:
                continue
        if found:
            break
        await asyncio.sleep(0.02)
    return found
