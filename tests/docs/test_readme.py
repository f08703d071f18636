"""Every command of the README is run, as it stands there but for the port, against a real server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_lab.settings import Settings, setting_names
from tests.preloaded import run_program
from tests.server import ROOT, ServerProcess, environment, working_folder

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: These set up or test a whole installation; tests/setup runs the program behind them.
INSTALLERS = ("./start.sh\n", "./test.sh\n")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh" and text not in INSTALLERS]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("readme") / "data") as server:
        yield server


def _run(server: ServerProcess, command: list[str], text: str) -> str:
    names = environment(server.data_dir) | {"PYTHONPATH": str(ROOT), "API_PORT": str(server.port)}
    names["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{names['PATH']}"
    result = subprocess.run(
        [*command, text.replace("8001", str(server.port))],
        cwd=working_folder(server.data_dir),
        env=names,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_there_is_something_to_run() -> None:
    assert len(SHELL) >= 2
    assert len(PYTHON) >= 3


@pytest.mark.timeout(900)
def test_the_commands_work_in_the_order_in_which_they_stand(server: ServerProcess) -> None:
    first, importing, measured, benchmarked, guarded, passed_on = SHELL
    output = _run(server, ["sh", "-e", "-c"], first.replace("curl ", "curl --fail --silent --show-error "))
    assert '"status":"success"' in output
    assert "event: message.done" in output
    assert "What is a llama?" in output
    folder = working_folder(server.data_dir)
    (folder / "conversations").mkdir()
    (folder / "conversations" / "old.json").write_text(
        '[{"role": "User", "content": "kept", "timestamp": "2024-01-01"}]'
    )
    assert "old" in _run(server, ["sh", "-e", "-c"], importing.replace("migrate_json", f"{ROOT}/migrate_json"))
    # The launcher looks for the environment of start.sh; the command is the same in that of the tests.
    measured, benchmarked, guarded = (
        re.sub(r"\./ai-lab (\w+)", lambda name: f"{sys.executable} -P -m ai_lab.cli {name[1]}", text)
        for text in (measured, benchmarked, guarded)
    )
    output = _run(server, ["sh", "-e", "-c"], measured.replace("curl ", "curl --fail --silent --show-error "))
    for shown in ("healthy", "CPU", '"cpu_usage_percent"', '"series"', '"by_route"', '"component":"database"'):
        assert shown in output
    output = _run(server, ["sh", "-e", "-c"], benchmarked.replace("curl ", "curl --fail --silent --show-error "))
    for shown in ("Decode rate", "echo/echo", "complete", '"avg_time"'):
        assert shown in output
    output = _run(server, ["sh", "-e", "-c"], guarded.replace("curl ", "curl --fail --silent --show-error "))
    for shown in ("work", "master.key", "intact", '"supported_services"'):
        assert shown in output
    output = _run(server, ["sh", "-e", "-c"], passed_on.replace("curl ", "curl --fail --silent --show-error "))
    for shown in ("x-ai-lab-provider: echo", "x-ai-lab-cost: 0", '"hit_rate"', '"key":"echo/echo"', '"breakers":[]'):
        assert shown in output


@pytest.mark.parametrize("program", PYTHON, ids=range(len(PYTHON)))
def test_the_programs_work(server: ServerProcess, program: str) -> None:
    # Both clients have the address of the README as their default; the test's server has another port.
    program = program.replace("LabClient()", 'LabClient("http://127.0.0.1:8001")')
    result = run_program(
        ["-c", program.replace("8001", str(server.port))],
        cwd=working_folder(server.data_dir),
        env=environment(server.data_dir, {"API_PORT": str(server.port)}),
        timeout_seconds=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("script", ["start.sh", "test.sh"])
def test_the_two_commands_are_there_and_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["sh", "-n", str(ROOT / script)], check=True)  # noqa: S607 - whichever sh there is


def test_the_settings_table_shows_every_setting_with_its_default() -> None:
    table = README.partition("<!-- settings -->")[2].partition("<!-- end of settings -->")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    for field, name in setting_names().items():
        default = Settings.model_fields[field].default
        assert shown.pop(name) == ("" if default in (None, ()) else f"`{default}`")
    assert shown == {}


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
