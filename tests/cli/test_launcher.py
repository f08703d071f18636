"""``./ai-lab``: there after ``./start.sh``, from any folder."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ai_lab import __version__
from tests.cli.command import run_command
from tests.project_copy import ROOT, ProjectCopy
from tests.server import environment, working_folder

_COMMAND = "import sys; print('called with', sys.argv[1:], 'of', __name__)"


@pytest.fixture
def copy(tmp_path: Path) -> ProjectCopy:
    copy = ProjectCopy(tmp_path)
    shutil.copy(ROOT / "ai-lab", copy.project / "ai-lab")
    command = copy.project / "ai_lab" / "cli"
    command.mkdir()
    (command / "__init__.py").touch()
    (command / "__main__.py").write_text(_COMMAND)
    copy.add_uv()
    return copy


def call(copy: ProjectCopy, program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], cwd=folder, env=copy.environment(), capture_output=True, text=True, check=False
    )


def test_before_the_first_start_it_says_what_to_run(copy: ProjectCopy) -> None:
    result = call(copy, str(copy.project / "ai-lab"), "status", folder=copy.project)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: AI Lab is not set up yet. Run ")
    assert f"{copy.project}/start.sh" in result.stderr


def test_after_a_start_it_works_from_any_folder_and_by_a_link(copy: ProjectCopy, tmp_path: Path) -> None:
    assert copy.start().returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lab").symlink_to(Path("..", "a lab", "ai-lab"))
    (elsewhere / "ai_lab.py").write_text("raise SystemExit('the file of the folder was taken')")
    for program in (str(copy.project / "ai-lab"), str(elsewhere / "lab"), "./lab"):
        result = call(copy, program, "status", "--url", "http://a b", folder=elsewhere)
        assert (result.stderr, result.returncode) == ("", 0)
        assert result.stdout == "called with ['status', '--url', 'http://a b'] of __main__\n"


def test_an_installed_package_has_the_same_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"ai-lab": "ai_lab.cli:main"}


def test_version_and_help(tmp_path: Path) -> None:
    assert run_command(tmp_path, "--version").stdout == f"ai-lab {__version__}\n"
    text = run_command(tmp_path, "--help").stdout
    assert re.search(r"\bstatus\b", text)
    assert re.search(r"\btop\b", text)
    for command in ("status", "top"):
        assert "--url" in run_command(tmp_path, command, "--help").stdout


def test_help_loads_nothing_that_takes_long(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv[1:] = ['top', '--help']; from ai_lab.cli import main\n"
        "try: main()\nexcept SystemExit: print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=working_folder(tmp_path)
    )
    assert {"httpx", "sqlalchemy", "asyncio", "ai_lab.settings", "ai_lab.cli.top"} & set(loaded.stdout.split()) == set()


@pytest.mark.parametrize("arguments", [["status", "--url", "ftp://x"], ["top", "--url", "http://"]])
def test_an_address_that_is_none_is_said_to_be_none(tmp_path: Path, arguments: list[str]) -> None:
    result = run_command(tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "is not an http or https address" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ai_lab.cli", "status"],
        cwd=working_folder(tmp_path),
        env=environment(tmp_path, {"API_PORT": "many"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: API_PORT")
