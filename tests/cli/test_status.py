"""``ai-lab status`` as a person and as a program sees it."""

import asyncio
import io
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from ai_lab.cli.address import Address
from ai_lab.cli.figures import UNICODE
from ai_lab.cli.reading import Health, Reading
from ai_lab.cli.status_screen import draw
from ai_lab.telemetry.schemas import GpuMetrics
from tests.cli.command import run_command
from tests.cli.scripted_lab import ScriptedLab, component, health, metrics, performance
from tests.fakes.http_server import Reply, json_reply
from tests.server import ServerProcess, free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("status") / "data") as server:
        httpx.post(
            f"{server.url}/chat", json={"message": "one two three", "model": "echo/echo"}, timeout=60
        ).raise_for_status()
        yield server


@pytest.fixture
async def lab() -> AsyncIterator[ScriptedLab]:
    async with ScriptedLab() as lab:
        yield lab


async def status_of(
    lab: ScriptedLab, folder: Path, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        run_command, folder / "data", "status", "--url", lab.origin, *arguments, settings=settings
    )


def test_one_screen_says_how_a_server_is(server: ServerProcess, tmp_path: Path) -> None:
    result = run_command(tmp_path / "data", "status", "--url", server.url)
    assert (result.stderr, result.returncode) == ("", 0)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("AI Lab 0.1.0   ")
    assert server.url in lines[0]
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for word in ("database", "provider:embedded", "CPU", "Memory", "Disk /", "GPU", "Server", "echo/echo"):
        assert word in result.stdout
    assert "POST /chat" in result.stdout
    assert "echo/echo" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_settings_say_where_the_server_is(server: ServerProcess, tmp_path: Path) -> None:
    settings = {"API_PORT": str(server.port), "API_HOST": "0.0.0.0"}  # noqa: S104 - where a server may listen
    result = run_command(tmp_path / "data", "status", settings=settings)
    assert result.returncode == 0
    assert server.url in result.stdout


def test_programs_get_everything_as_json(server: ServerProcess, tmp_path: Path) -> None:
    result = run_command(tmp_path / "data", "status", "--json", "--url", server.url)
    assert (result.stderr, result.returncode) == ("", 0)
    found = json.loads(result.stdout)
    assert found["url"] == server.url
    assert found["status"] in {"healthy", "degraded"}
    database = found["health"]["components"][0]
    assert (database["component"], database["status"], database["observed_unit"]) == ("database", "healthy", "ms")
    assert 0 < found["metrics"]["memory_usage_percent"] < 100
    routes = {one["route"]: one["count"] for one in found["performance"]["http"]["by_route"]}
    assert routes["/chat"] == 1
    assert "from" in found["performance"]["window"]
    assert "echo/echo" in [model["id"] for model in found["models"]]
    assert found["missing"] == {}


def test_without_a_server_it_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    port = free_port()
    result = run_command(tmp_path / "data", "status", settings={"API_PORT": str(port)})
    assert result.returncode == 2
    said = " ".join(result.stdout.split())
    assert f"No AI Lab server answers at http://127.0.0.1:{port} (from the settings API_HOST and API_PORT)." in said
    assert "./start.sh" in said
    assert "--url" in said
    assert "Traceback" not in result.stderr

    found = json.loads(run_command(tmp_path / "data", "status", "--json", "--url", f"127.0.0.1:{port}").stdout)
    assert (found["status"], found["url"]) == ("unreachable", f"http://127.0.0.1:{port}")
    assert "./start.sh" in found["remedy"]


def test_a_server_that_was_started_at_another_port_is_pointed_to(server: ServerProcess) -> None:
    result = run_command(server.data_dir, "status", settings={"API_PORT": str(free_port())})
    assert result.returncode == 2
    assert f"One with your data was started at {server.url}: try --url {server.url}" in " ".join(result.stdout.split())


async def test_what_is_wrong_is_said_with_its_remedy(lab: ScriptedLab, tmp_path: Path) -> None:
    lab.tell("/health/detailed", health("degraded", component("disk", "degraded", "0.7 GiB free", "Free some space.")))
    degraded = await status_of(lab, tmp_path)
    assert degraded.returncode == 0
    assert "degraded" in degraded.stdout.splitlines()[0]
    assert "0.7 GiB free" in degraded.stdout
    assert "→ Free some space." in degraded.stdout

    broken = health("unhealthy", component("database", "unhealthy", "it is gone", "Bring it back."))
    lab.tell("/health/detailed", broken, status=503)
    problem = {"code": "database_unavailable", "detail": "The database does not answer."}
    lab.tell("/performance/summary", problem, status=503)
    unhealthy = await status_of(lab, tmp_path)
    assert unhealthy.returncode == 2
    assert "→ Bring it back." in unhealthy.stdout
    assert "Last hour  The database does not answer." in unhealthy.stdout
    assert "CPU" in unhealthy.stdout
    assert json.loads((await status_of(lab, tmp_path, "--json")).stdout)["missing"] == {
        "performance": "The database does not answer."
    }


async def test_the_figures_are_the_servers(lab: ScriptedLab, tmp_path: Path) -> None:
    result = await status_of(lab, tmp_path)
    lines = {line[11:].split("  ")[0]: line for line in result.stdout.splitlines()}
    assert lines["CPU"].split() == [
        "Machine",
        "CPU",
        "37",
        "%",
        "━━━━────────",
        "2",
        "cores,",
        "load",
        "0.42",
        "0.31",
        "0.25",
    ]
    assert lines["Memory"].endswith("41 %  ━━━━━───────  3.0 of 8.0 GiB".ljust(61))
    assert "94 %" in lines["Disk /"]
    assert "6.0 GiB free of 100 GiB" in lines["Disk /"]
    assert "none (no NVIDIA driver)" in lines["GPU"]
    assert "2 % of a core, 180 MiB" in lines["Server"]
    assert "95 % of a core, 1.0 GiB" in lines["Engine"]
    assert (
        "1,604 requests, 3 failed; tokens 12,345 in, 45,678 out"
        in lines["1,604 requests, 3 failed; tokens 12,345 in, 45,678 out"]
    )
    assert lines["POST /chat"].split()[2:] == ["1,204", "3", "1.7", "s", "3.4", "s"]
    assert lines["embedded/tiny"].split()[1:] == ["12", "0", "2.8", "s", "5.6", "s"]
    assert "GET /metrics" not in lines
    assert "Models     embedded/tiny, ollama/gone (does not answer)" in result.stdout


@pytest.mark.parametrize("columns", [20, 40, 69, 70, 80, 200])
@pytest.mark.parametrize("lines", [24, 50])
def test_it_fits_any_terminal(columns: int, lines: int) -> None:
    state = health("degraded", component("disk", "degraded", "word " * 60, "Free some space."), component("x" * 99))
    sample = metrics(64, [GpuMetrics(index=0, name="Big One " * 20)])
    reading = Reading(Health.model_validate(state), sample, performance(), [{"id": "embedded/" + "m" * 90}] * 9)
    console = Console(width=columns, height=lines, file=io.StringIO())
    console.print(draw(Address("http://127.0.0.1:8001"), reading, console.size, UNICODE))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    assert "Free" in shown


async def test_a_terminal_that_knows_ascii_alone_gets_ascii(lab: ScriptedLab, tmp_path: Path) -> None:
    lab.tell("/v1/models", {"data": [{"id": "embedded/größe"}]})
    result = await status_of(lab, tmp_path, PYTHONIOENCODING="ascii")
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.isascii()
    assert "embedded/gr??e" in result.stdout
    assert "* healthy" in result.stdout


async def test_what_a_server_says_cannot_steer_the_terminal(lab: ScriptedLab, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07[red]x[/red]\x9b2J"
    lab.tell("/health/detailed", health("healthy\x1b[2J", component(evil, "degraded\x1b[2J", evil, evil)))
    lab.tell("/v1/models", {"data": [{"id": evil}]})
    result = await status_of(lab, tmp_path)
    assert not any(sign in result.stdout for sign in "\x1b\x07\x9b")
    assert "[red]x[/red]" in result.stdout


async def test_a_server_without_metrics_is_shown_without_them(lab: ScriptedLab, tmp_path: Path) -> None:
    problem = {"code": "metrics_disabled", "detail": "Metrics are switched off by ENABLE_METRICS."}
    lab.tell("/metrics", problem, status=503)
    result = await status_of(lab, tmp_path)
    assert result.returncode == 0
    assert "Machine    Metrics are switched off by ENABLE_METRICS." in result.stdout


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (json_reply({"error": "no such page"}, status=404), "is not this version of AI Lab"),
        (json_reply({"hello": "world"}), "is not this version of AI Lab"),
        (Reply([b"<html>"], headers={"content-type": "text/html"}), "is not this version of AI Lab"),
        (Reply([b"{"], ending="cut"), "took the connection and did not answer"),
    ],
)
async def test_what_is_no_lab_is_said_to_be_none(lab: ScriptedLab, tmp_path: Path, reply: Any, said: str) -> None:
    lab.say("/health/detailed", reply)
    result = await status_of(lab, tmp_path)
    assert result.returncode == 2
    assert said in " ".join(result.stdout.split())
    assert "Traceback" not in result.stderr


async def test_a_machine_with_gpus_shows_what_they_tell(lab: ScriptedLab, tmp_path: Path) -> None:
    whole = GpuMetrics(
        index=0,
        name="Big One",
        utilization_percent=64,
        memory_total_bytes=24 * 1024**3,
        memory_used_bytes=6 * 1024**3,
        temperature_celsius=61,
        power_watts=223.4,
    )
    lab.tell("/metrics", metrics(gpus=[whole, GpuMetrics(index=1)]).model_dump(mode="json"))
    result = await status_of(lab, tmp_path, COLUMNS="110")
    lines = {line[11:].split("  ")[0]: line for line in result.stdout.splitlines()}
    assert "64 %" in lines["GPU 0"]
    assert "6.0 of 24.0 GiB, 61 °C, 223 W, Big One" in lines["GPU 0"]
    assert "%" not in lines["GPU 1"]
