"""``ai-lab bench`` as a person meets it: on a real server, in a real terminal."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ai_lab.client import LabClient
from tests.benchmarks.calibrated_server import CalibratedServer
from tests.cli.command import COMMAND, run_command
from tests.cli.terminal import Terminal
from tests.server import ServerProcess, environment, free_port, working_folder

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bench") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def measured() -> Iterator[CalibratedServer]:
    with CalibratedServer(models={"fast": 1.0, "slow": 2.0}, ttft_ms=5, gap_ms=2) as measured:
        yield measured


@pytest.fixture(scope="module")
def run_id(server: ServerProcess, measured: CalibratedServer) -> str:
    """Give the id of a run that has ended."""
    quick: dict[str, Any] = {"idle_seconds": 0, "calibration_seconds": 0, "output_tokens": 8}
    with LabClient(server.url) as client:
        return client.benchmark("fast", url=measured.url, iterations=12, title="first", progress=False, **quick).id


def bench(folder: Path, server: ServerProcess | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    url = ("--url", server.url) if server else ()
    return run_command(folder / "data", "bench", *arguments, *url)


def test_a_stored_run_is_shown_listed_and_reported(server: ServerProcess, run_id: str, tmp_path: Path) -> None:
    shown = bench(tmp_path, server, "show", run_id)
    assert (shown.returncode, "\x1b" in shown.stdout) == (0, False)
    lines = shown.stdout.splitlines()
    assert lines[0] == "first"
    assert lines[1].split()[0] in {"VALID", "SUSPECT", "INVALID"}
    assert max(map(len, lines)) <= 80
    figures = {line[:22].strip(): line[24:].strip() for line in lines}
    assert figures["n (ok of all)"] == "12 of 12"
    assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\] ms", figures["First token, median"])
    (line,) = [one for one in bench(tmp_path, server, "list").stdout.splitlines() if one.startswith(run_id)]
    assert "complete" in line
    assert line.endswith("12/12  first")

    assert json.loads(bench(tmp_path, server, "report", run_id, "-f", "json").stdout)["id"] == run_id
    assert bench(tmp_path, server, "report", run_id).stdout.startswith("# first")
    page = tmp_path / "page.html"
    written = bench(tmp_path, server, "report", run_id, "-o", str(page))
    assert (written.stdout, written.stderr) == ("", f"Written to {page}\n")
    assert "<svg" in page.read_text(encoding="utf-8")
    text = tmp_path / "run.txt"
    bench(tmp_path, server, "report", run_id, "-o", str(text))
    assert text.read_text(encoding="utf-8").startswith("first\n")


def test_a_pipe_that_closes_ends_it_quietly(server: ServerProcess, run_id: str, tmp_path: Path) -> None:
    for arguments in (f"report {run_id} -f jsonl", "list"):
        result = subprocess.run(
            ["/bin/sh", "-c", f"{' '.join(COMMAND)} bench {arguments} --url {server.url} | head -c 1"],
            cwd=working_folder(tmp_path / "data"),
            env=environment(tmp_path / "data"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (len(result.stdout), result.stderr) == (1, "")


def test_a_slower_arm_breaks_the_build(server: ServerProcess, measured: CalibratedServer, tmp_path: Path) -> None:
    arms = ("fast", "slow,name=the slow one", "--target", measured.url, "-n", "12", "--output-tokens", "8")
    verdict = "inconclusive"
    for _ in range(3):  # a busy machine does not let every run come to a verdict
        result = bench(tmp_path, server, "compare", *arms, "--fail-if-slower", "20%", "-f", "json")
        told = json.loads(result.stdout)
        if told["grade"] == "INVALID":
            assert result.returncode == 3
            continue
        (verdict,) = {one["verdict"] for one in told["report"]["comparisons"] if one["metric"] == "tpot"}
        if verdict != "inconclusive":
            break
    assert (verdict, result.returncode) == ("slower", 1)
    assert "--fail-if-slower: the slow one is slower than fast by" in result.stderr


def test_stored_runs_are_run_again_compared_and_deleted(server: ServerProcess, run_id: str, tmp_path: Path) -> None:
    again = bench(tmp_path, server, "rerun", run_id, "-f", "json")
    other = json.loads(again.stdout)
    assert (again.returncode, other["rerun_of"]) == (0, run_id)
    stored = bench(tmp_path, server, "compare", run_id, other["id"], "--fail-if-slower", "5%", "-f", "json")
    assert stored.returncode in {0, 1}
    assert all(one["is_historical"] for one in json.loads(stored.stdout))

    assert bench(tmp_path, server, "delete", other["id"]).returncode == 0
    gone = bench(tmp_path, server, "show", other["id"])
    assert (gone.returncode, gone.stdout) == (2, "")
    assert gone.stderr == f"error: There is no benchmark '{other['id']}'. ai-lab bench list shows them.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run echo/ekko", "error: There is no model 'echo/ekko'. Did you mean echo/echo?"),
        ("run echo/echo -n 0", "error: --iterations: should be greater than or equal to 1"),
        ("run echo/echo -f yaml", "error: --format: 'yaml' is none of text, json, jsonl, csv, markdown, html"),
        ("run echo/echo -o /no/such/folder/x.html", "error: --output: /no/such/folder/x.html cannot be written (no su"),
        ("run m --target http://127.0.0.1:9", "error: 127.0.0.1:9 cannot be reached"),
        ("compare echo/echo", "error: A comparison needs two models or more"),
        ("compare echo/echo 01a1fef6-8069-7174-acf1-3cb9d405c34a", "error: 'echo/echo' is no id of a run"),
        ("show nonsense", "error: There is no benchmark 'nonsense'. ai-lab bench list shows them."),
    ],
)
def test_what_is_wrong_is_one_line_with_the_remedy(
    server: ServerProcess, tmp_path: Path, arguments: str, said: str
) -> None:
    result = bench(tmp_path, server, *arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_a_server_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = run_command(tmp_path / "data", "bench", "list", "--url", f"127.0.0.1:{free_port()}")
    assert (result.returncode, result.stdout) == (2, "")
    assert "No AI Lab server answers" in result.stderr


def watch(folder: Path, *arguments: str, columns: int = 80) -> Terminal:
    return Terminal(
        [*COMMAND, "bench", *arguments],
        cwd=working_folder(folder / "data"),
        env=environment(folder / "data", {"API_PORT": str(free_port())}),
        columns=columns,
    )


def test_ctrl_c_cancels_the_run_on_the_server_and_shows_what_was_measured(
    server: ServerProcess, measured: CalibratedServer, tmp_path: Path
) -> None:
    options = ("--url", server.url, "--target", measured.url, "-n", "10000", "--output-tokens", "8")
    with watch(tmp_path, "run", "fast", *options) as terminal, LabClient(server.url) as client:
        terminal.wait_until_said("tok/s")  # the bar shows the latest request
        terminal.type(b"\x03")
        assert terminal.ends() == 130
        assert "Cancelling; Ctrl-C again leaves at once." in terminal.said
        assert "First token, median" in terminal.said
        assert "Traceback" not in terminal.said
        (run_id,) = set(re.findall(r"ai-lab bench resume (\S+)", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.said)))
        assert client.benchmarks.get(run_id).status == "cancelled"


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM"])
def test_without_a_server_nothing_is_left_behind(measured: CalibratedServer, tmp_path: Path, how: str) -> None:
    options = ("--target", measured.url, "-n", "10000", "--output-tokens", "8")
    with watch(tmp_path, "run", "fast", *options) as terminal:
        terminal.wait_until_said("idle")
        process = psutil.Process(terminal.process.pid)
        children = process.children(recursive=True)
        assert any("ai_lab.benchmarks.worker" in " ".join(child.cmdline()) for child in children)
        if how == "ctrl-c":
            terminal.type(b"\x03")
        else:
            process.terminate()
        assert terminal.ends() == 130
        assert not any(child.is_running() for child in children)
        assert "this process does the work" in terminal.said
    listed = bench(tmp_path, None, "list")
    assert "cancelled" in listed.stdout
    assert listed.stderr.startswith("No server at")


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_the_list_never_cuts_an_id(server: ServerProcess, run_id: str, tmp_path: Path, columns: int) -> None:
    with watch(tmp_path, "list", "--url", server.url, columns=columns) as terminal:
        assert terminal.ends() == 0
        assert run_id in terminal.said


def test_a_terminal_that_knows_ascii_alone_gets_ascii(server: ServerProcess, run_id: str, tmp_path: Path) -> None:
    settings = {"PYTHONIOENCODING": "ascii"}
    shown = run_command(tmp_path / "data", "bench", "show", run_id, "--url", server.url, settings=settings)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.isascii()
