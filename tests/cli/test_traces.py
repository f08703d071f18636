"""``ai-lab trace`` as a person meets it, on a server in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from ai_lab.cli.command import app
from ai_lab.settings import Settings
from tests.fakes.faulty_provider import ANSWER, FaultyProvider
from tests.lab_server import LabServer, serve_lab
from tests.server import free_port

Types = Callable[..., Awaitable[Result]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LabServer]:
    async with FaultyProvider() as fake:
        servers = {"faulty": fake.base_url}
        aliases = {"fast": ["faulty/error_500", "faulty/ok"]}
        settings = Settings(data_dir=tmp_path, servers=servers, aliases=aliases, retry_attempts=1)
        async with serve_lab(settings) as served:
            yield served


@pytest.fixture
def types(server: LabServer) -> Types:
    async def run(*arguments: str) -> Result:
        command = ["trace", *arguments, "--url", server.url]
        return await asyncio.to_thread(CliRunner().invoke, app, command, prog_name="ai-lab")

    return run


async def test_answers_are_listed_shown_and_asked_again(server: LabServer, types: Types) -> None:
    assert (await types("list")).stderr == "No model was asked yet.\n"
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        said = {"message": "Hello", "model": "fast", "session_id": "ada"}
        identifier = (await http.post("/chat", json=said)).headers["x-ai-lab-trace-id"]
        assert (await http.post("/chat", json=said | {"model": "faulty/auth"})).status_code == 502

    listed = await types("list")
    lines = [line.split() for line in listed.stdout.strip().splitlines()]
    assert {identifier, "faulty/ok", "complete", "2"} <= set(lines[-1])
    assert "provider_auth_failed" in lines[-2]
    (only,) = json.loads((await types("list", "--status", "failed", "--json")).stdout)
    assert only["error_code"] == "provider_auth_failed"
    assert (await types("list", "--session", "bob")).stderr == "There is no such trace.\n"

    shown = await types("show", identifier)
    assert shown.exit_code == 0
    for words in (
        "chat faulty/ok (asked for fast): complete",
        "conversation ada",
        "1. first faulty/error_500: failed",
        "2. fallback faulty/ok: ok",
        "tokens: 7 in, 4 out",
        "provider_error: ",
    ):
        assert words in shown.stdout, shown.stdout
    assert json.loads((await types("show", identifier, "--json")).stdout)["id"] == identifier

    again = await types("replay", identifier, "faulty/split_utf8")
    assert again.exit_code == 0, again.output
    assert again.stdout.count(ANSWER) == 2
    assert "again: faulty/split_utf8" in again.stdout

    missing = await types("show", "0" * 32)
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr.startswith("error: There is no trace with this id.")


def test_without_a_server_the_remedy_is_said() -> None:
    nobody = CliRunner().invoke(app, ["trace", "list", "--url", f"http://127.0.0.1:{free_port()}"])
    assert nobody.exit_code == 2
    assert "No AI Lab server answers" in nobody.stderr
