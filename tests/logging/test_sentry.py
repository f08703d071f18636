"""Error reports: only where they are asked for, and without any secret, over a real socket to a scripted server."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.connection import Connection, Reply
from tests.fakes.sentry_server import FakeSentry
from tests.server import environment, free_port, run_main, working_folder

ROOT = Path(__file__).resolve().parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def sentry() -> AsyncIterator[FakeSentry]:
    async with FakeSentry() as server:
        yield server


@contextlib.asynccontextmanager
async def _failing_server(tmp_path: Path, **settings: str) -> AsyncIterator[tuple[Connection, Path]]:
    """Run the failing server; yields a connection to it and its log."""
    port, log = free_port(), tmp_path / "server.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "tests/logging/failing_server.py", str(port), "CANARYlocal"),
            cwd=ROOT,
            env=environment(tmp_path / "data", settings) | {"PYTHONPATH": str(ROOT)},
            stderr=output,
        )
    try:
        async with Connection(f"http://127.0.0.1:{port}") as connection:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    await connection.request("GET", "/health/live")
                    break
                await asyncio.sleep(0.05)
            yield connection, log
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _fail(connection: Connection) -> Reply:
    return await connection.request(
        "POST",
        "/fails?api_key=CANARYquery&x=1",
        {"password": "CANARYbody"},
        authorization="Bearer CANARYheader",
        x_api_key="CANARYkey",
        cookie="session=CANARYcookie",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
    )


async def test_a_report_says_what_failed_and_holds_no_secret(tmp_path: Path, sentry: FakeSentry) -> None:
    settings = {"SENTRY_DSN": sentry.dsn, "AI_LAB_LOG_FORMAT": "json"}
    async with _failing_server(tmp_path, **settings) as (connection, log):
        reply = await _fail(connection)
        await sentry.next_request()
    assert reply.status == 500
    sent = "".join(map(sentry.content, sentry.requests))
    assert "CANARY" not in sent, sent[sent.index("CANARY") - 300 :]
    (event,) = sentry.events()  # the same failure is logged by the server below too: it is reported once
    (error,) = event["exception"]["values"]
    assert error["type"] == "RuntimeError"
    assert "/fails?api_key=[redacted]&x=1" in error["value"]
    assert error["stacktrace"]["frames"][-1]["function"] == "fails"
    assert event["tags"] == {"request_id": reply.headers["x-request-id"], "trace_id": TRACE}
    assert not {"request", "user", "modules"} & set(event)
    assert not any("vars" in frame for frame in error["stacktrace"]["frames"])
    assert any("about to fail" in crumb["message"] for crumb in event["breadcrumbs"]["values"])

    text = log.read_text()
    assert "CANARY" not in text
    entries = [json.loads(line) for line in text.splitlines()]
    failures = [entry for entry in entries if "exception" in entry]
    assert [entry["logger"] for entry in failures] == ["backend.errors", "uvicorn.error"]
    access = [entry for entry in entries if entry.get("path") == "/fails"]
    assert [entry["trace_id"] for entry in failures + access] == [TRACE] * 3


async def test_a_sentry_server_that_is_not_there_disturbs_nobody(tmp_path: Path) -> None:
    async with _failing_server(tmp_path, SENTRY_DSN="http://key@127.0.0.1:9/7") as (connection, log):
        assert (await _fail(connection)).status == 500
        connection.close()  # as the server does after an error that nobody caught
        assert (await connection.request("GET", "/health/live")).status == 200
    assert "CANARY" not in log.read_text()


def test_without_a_dsn_nothing_is_imported(tmp_path: Path) -> None:
    program = """
import sys
from ai_lab.logging import set_up_logging
from ai_lab.settings import Settings
set_up_logging(Settings.load())
sys.exit("sentry_sdk" in sys.modules)
"""
    for settings in ({}, {"SENTRY_DSN": " "}):
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=working_folder(tmp_path / "data"),
            env=environment(tmp_path / "data", settings) | {"PYTHONPATH": str(ROOT)},
            timeout=60,
            check=True,
        )


def test_a_dsn_that_is_none_stops_the_start_without_showing_it(tmp_path: Path) -> None:
    result = run_main(tmp_path / "data", settings={"SENTRY_DSN": "https://CANARY/no-project"})
    assert result.returncode == 2
    assert result.stderr.startswith("error: SENTRY_DSN is no address of a Sentry project")
    assert "CANARY" not in result.stderr


def test_a_missing_extra_is_named_with_the_command(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["sentry_sdk"] = None  # as if it were not installed
sys.argv = ["main.py"]
from backend.server import main
sys.exit(main([]))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=working_folder(tmp_path / "data"),
        env=environment(tmp_path / "data", {"SENTRY_DSN": "http://key@127.0.0.1:9/7"}) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "pip install 'ai-lab[sentry]'" in result.stderr
