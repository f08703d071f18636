"""The log of a real server: whose request a line is of, no secret anywhere, whole lines after a kill."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.connection import Connection
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import OpenAIServer
from tests.server import ServerProcess

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_SETTINGS = {"AI_LAB_DEFAULT_MODEL": "echo/echo", "AI_LAB_LOG_FILE": "logs/ai.log"}
_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", _SETTINGS) as server:
        yield server


def _file(server: ServerProcess) -> Path:
    return server.data_dir / "logs" / "ai.log"


def _entries(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _file(server).read_text().splitlines()]


def _entry(server: ServerProcess, request_id: str) -> dict[str, Any]:
    """Return the access line of a request; it is written a moment after the answer."""
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        for entry in _entries(server):
            if entry["logger"] == "ai_lab.access" and entry["request_id"] == request_id:
                return entry
        time.sleep(0.01)
    raise AssertionError(f"no line of {request_id}")


def test_a_line_has_the_ids_of_its_request(server: ServerProcess) -> None:
    given = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "mine-1"}
    reply = httpx.get(f"{server.url}/conversations?limit=1", headers=given, timeout=60)
    entry = _entry(server, reply.headers["x-request-id"])
    assert (entry["request_id"], entry["trace_id"], entry["path"]) == ("mine-1", TRACE, "/conversations")
    assert (entry["level"], entry["event"], entry["method"], entry["status"]) == ("info", "request", "GET", 200)
    assert entry["bytes_sent"] == len(reply.content)

    unnamed = [httpx.get(f"{server.url}/conversations", timeout=60).headers["x-request-id"] for _ in range(2)]
    traces = {_entry(server, request_id)["trace_id"] for request_id in unnamed}
    assert len(traces) == 2
    assert TRACE not in traces


def test_a_stream_has_one_line_with_all_its_bytes(server: ServerProcess) -> None:
    with httpx.stream("POST", f"{server.url}/chat", json={"message": "a b c", "stream": True}, timeout=60) as reply:
        size = len(reply.read())
    entry = _entry(server, reply.headers["x-request-id"])
    assert (entry["path"], entry["status"], entry["bytes_sent"]) == ("/chat", 200, size)


def test_probes_do_not_fill_the_log(server: ServerProcess) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        httpx.get(server.url + path, timeout=60)
    last = httpx.get(f"{server.url}/conversations", timeout=60).headers["x-request-id"]
    _entry(server, last)
    paths = {entry["path"] for entry in _entries(server) if entry["logger"] == "ai_lab.access"}
    assert "/conversations" in paths
    assert not any(path.startswith("/health") for path in paths)


async def _try_everything(connection: Connection) -> None:
    """Send secrets wherever one can be sent, and let a service refuse its key three times."""
    await connection.request("GET", "/conversations?api_key=CANARYquery&token=CANARY&key=CANARY")
    await connection.request("GET", "/sk-CANARY0123456789/hf_CANARY01234567890?Bearer=CANARY")
    headers = {"authorization": "Bearer CANARYheader", "cookie": "session=CANARY", "x_api_key": "CANARY"}
    headers |= {"x_request_id": "not well formed: CANARY", "traceparent": "CANARY"}
    await connection.request("GET", "/conversations", **headers)
    await connection.request("POST", "/chat", {"message": 7, "api_key": "CANARYbody"})
    await connection.request("POST", "/chat", {"message": "my password is CANARYmessage"})
    await connection.request("POST", "/chat", "CANARYbody")
    await connection.request("PUT", "/conversations/x", {"password": "CANARY"})
    refused = {"message": "hi", "model": "mine/tiny"}
    assert (await connection.request("POST", "/chat", refused)).status == 502
    await connection.request("POST", "/chat", refused | {"stream": True})
    messages = [{"role": "user", "content": "hi"}]
    await connection.request("POST", "/v1/chat/completions", {"messages": messages, "model": "mine/tiny"})


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_no_secret_that_anybody_sent_is_in_the_log(tmp_path: Path, level: str) -> None:
    async with OpenAIServer() as service:
        refusal = {"error": {"message": "Incorrect API key provided: CANARYofservice.", "code": "invalid_api_key"}}
        service.script("/v1/chat/completions", json_reply(refusal, status=401))
        servers = {"mine": {"base_url": f"{service.origin}/v1", "api_key": "CANARYofservice"}}
        settings = _SETTINGS | {"AI_LAB_SERVERS": json.dumps(servers), "LOG_LEVEL": level, "AI_LAB_LOG_FORMAT": "json"}
        server = ServerProcess(tmp_path / "data", settings | {"ENCRYPTION_KEY": "CANARYencryption"})
        with server:
            async with Connection(server.url) as connection:
                await _try_everything(connection)
            received = service.received("/v1/chat/completions")
            assert [request.headers["authorization"] for request in received] == ["Bearer CANARYofservice"] * 3
            assert server.stop() == 0
    assert "CANARY" not in server.log
    assert "CANARY" not in _file(server).read_text()
    assert any(entry.get("code") == "provider_auth_failed" for entry in _entries(server))


def test_the_file_is_put_aside_by_size(tmp_path: Path) -> None:
    settings = _SETTINGS | {"AI_LAB_LOG_FILE_MB": "1", "AI_LAB_LOG_FILES_KEPT": "1"}
    with ServerProcess(tmp_path / "data", settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        path = "/" + "x" * 8_000
        for _ in range(300):
            last = client.get(path).headers["x-request-id"]
        _entry(server, last)
        files = sorted(file.name for file in _file(server).parent.iterdir())
        assert files == ["ai.log", "ai.log.1"]
        assert all(file.stat().st_size <= 2**20 for file in _file(server).parent.iterdir())


def test_a_kill_leaves_whole_lines(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", _SETTINGS)
    for _ in range(2):
        server.start()
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for _ in range(100):
                client.get("/conversations/none")
        server.kill()
    text = _file(server).read_text()
    assert text.endswith("\n")
    assert len([json.loads(line) for line in text.splitlines()]) > 150
