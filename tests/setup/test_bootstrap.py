"""start.sh and test.sh in a copy of the project, with scripted stand-ins for uv, pip and Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project_copy import BASE_PYTHON, PIP, ROOT, ProjectCopy, write_program

_SAID_BY_UV = "error: fetching https://someone:hunter2@packages.example/simple/ failed\n"


@pytest.fixture
def copy(tmp_path: Path) -> ProjectCopy:
    return ProjectCopy(tmp_path)


@pytest.fixture
def started(copy: ProjectCopy) -> ProjectCopy:
    """A copy that was started once."""
    copy.add_uv()
    assert copy.start().returncode == 0
    assert copy.calls() == ["venv", "pip"]
    return copy


@pytest.mark.parametrize(
    ("version", "words"),
    [("3.9", "Python 3.9 is too old: AI Lab needs Python 3.11"), ("2.7", "Python 2.7 is too old"), (None, "No Python")],
)
@pytest.mark.parametrize("script", ["start.sh", "test.sh"])
def test_without_a_python_that_is_new_enough_one_line_says_what_to_do(
    copy: ProjectCopy, version: str | None, words: str, script: str
) -> None:
    (copy.programs / "python3").unlink()
    if version:
        copy.add_program("python3", f"#!/bin/sh\necho {version}\n")
    result = copy.start(script=copy.project / script)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert "apt install" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_newer_python_is_found_behind_old_and_broken_ones(copy: ProjectCopy) -> None:
    copy.add_uv()
    copy.add_program("python", (copy.programs / "python3").read_text())
    copy.add_program("python3", "#!/bin/sh\necho 3.9\n")
    copy.add_program("python3.13", "#!/bin/sh\nexit 127\n")
    assert copy.start().returncode == 0


def test_help_installs_nothing_and_names_every_option(copy: ProjectCopy) -> None:
    result = copy.start("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert not (copy.project / ".venv").exists()
    assert not (copy.project / ".tools").exists()
    of_main = subprocess.run([sys.executable, ROOT / "main.py", "--help"], capture_output=True, text=True, check=True)
    assert set(re.findall(r"--[a-z]+", of_main.stdout)) <= set(re.findall(r"--[a-z]+", result.stdout))


def test_the_first_start_installs_and_a_second_one_does_nothing_again(copy: ProjectCopy, tmp_path: Path) -> None:
    copy.add_uv()
    (tmp_path / "lab").symlink_to("a lab/start.sh")
    first = copy.start("--port", "9 1", script=tmp_path / "lab")
    assert json.loads(first.stdout) == {"arguments": ["--port", "9 1"], "folder": str(tmp_path)}
    assert re.findall(r"^\d/4", first.stderr, re.MULTILINE) == ["1/4", "2/4", "3/4", "4/4"]
    assert copy.calls() == ["venv", "pip"]

    (copy.project / ".tools" / "lock").unlink()
    second = copy.start("--port", "9 1")
    assert not (copy.project / ".tools" / "lock").exists()
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert copy.calls() == []


def test_the_project_can_be_imported_from_anywhere(started: ProjectCopy) -> None:
    python = started.project / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", "import ai_lab"], cwd="/", check=True)


def test_setup_makes_the_database_and_does_not_serve(copy: ProjectCopy) -> None:
    copy.add_uv()
    assert copy.start("--setup").stdout == "database made\n"


def test_a_changed_lock_is_installed_into_the_same_environment(started: ProjectCopy) -> None:
    with (started.project / "requirements" / "runtime.lock").open("a") as lock:
        lock.write("# changed\n")
    assert started.start().returncode == 0
    assert started.calls() == ["pip"]


def test_a_moved_project_finds_itself_again(started: ProjectCopy) -> None:
    started.project = started.project.rename(started.project.with_name("elsewhere"))
    assert started.start().returncode == 0
    python = started.project / ".venv" / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import ai_lab; print(ai_lab.__file__)"], cwd="/", capture_output=True, check=True
    )
    assert b"elsewhere" in found.stdout


def test_an_environment_whose_python_was_removed_is_made_anew(started: ProjectCopy) -> None:
    python = started.project / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert started.start().returncode == 0
    assert started.calls() == ["venv", "pip"]


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (_SAID_BY_UV, "check the network"),
        ("error: No space left on device (os error 28)", "The disk is full"),
        ("error: Hash mismatch for `rich==1`", "not the one that was locked"),
        ("error: invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        (
            "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found for uv",
            "check the network",
        ),
        ("error: rich==1 has no wheels with a matching platform tag", "no ready-made build"),
        ("error: something new", "remove .tools"),
    ],
)
def test_a_failed_install_is_explained_and_finished_by_the_next_start(
    copy: ProjectCopy, said: str, remedy: str
) -> None:
    copy.add_uv()
    failed = copy.start(settings={"UV_FAKE_SAYS": said})
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert remedy in failed.stderr.splitlines()[-1]
    assert "hunter2" not in failed.stderr
    assert "packages.example" not in failed.stderr
    copy.calls()

    assert copy.start().returncode == 0
    assert copy.calls() == ["venv", "pip"]  # anew: a package may have been there by half


def test_two_first_starts_at_once_install_once(copy: ProjectCopy) -> None:
    copy.add_uv()
    command: dict[str, Any] = {"env": copy.environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    starts = [subprocess.Popen([copy.project / "start.sh"], **command) for _ in range(3)]
    assert [start.wait(timeout=60) for start in starts] == [0, 0, 0]
    assert copy.calls() == ["venv", "pip"]


@pytest.mark.parametrize("on_path", ["none", "too old"])
def test_uv_is_fetched_once_into_a_private_folder(copy: ProjectCopy, on_path: str) -> None:
    if on_path == "too old":
        copy.add_program("uv", "#!/bin/sh\necho uv 0.1.0\n")
    copy.add_module("pip", PIP)
    assert copy.start().returncode == 0
    (private,) = (copy.project / ".tools").glob("uv-*/bin/uv")
    assert copy.calls() == ["venv", "pip"]
    shutil.rmtree(copy.project / ".venv")
    copy.add_module("pip", "raise SystemExit('must not be asked to install')")
    assert copy.start().returncode == 0
    assert private.exists()


def test_without_pip_and_venv_one_line_says_what_to_install(copy: ProjectCopy) -> None:
    copy.add_module("venv", "raise SystemExit('ensurepip is not available')")
    result = copy.start()
    assert result.returncode == 2
    assert "apt install python3-venv" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "index"),
    [({}, "https://own.example/"), ({"UV_DEFAULT_INDEX": "https://uv.example/"}, "https://uv.example/")],
)
def test_uv_goes_where_pip_goes_unless_it_was_told_otherwise(
    copy: ProjectCopy, settings: dict[str, str], index: str
) -> None:
    copy.add_uv()
    copy.add_module("pip", PIP)
    result = copy.start(settings=settings)
    assert f"index={index}" in (copy.project.parent / "calls").read_text()
    assert "example" not in result.stderr
    written = [path for path in copy.project.rglob("*") if path.is_file() and b"own.example" in path.read_bytes()]
    assert written == []


def test_test_sh_stops_at_the_step_that_failed_and_names_it(copy: ProjectCopy) -> None:
    copy.add_uv()
    tools = copy.project / ".venv-test" / "bin"
    assert copy.start(script=copy.project / "test.sh").returncode == 1  # nothing was really installed
    write_program(tools / "ruff", "#!/bin/sh\n[ $1 = format ]\n")
    write_program(tools / "mypy", "#!/bin/sh\necho mypy ran\n")
    result = copy.start(script=copy.project / "test.sh")
    assert result.returncode == 1
    assert "this step failed: ruff check ." in result.stderr
    assert "mypy ran" not in result.stdout

    write_program(tools / "ruff", "#!/bin/sh\n")
    write_program(tools / "lint-imports", "#!/bin/sh\n")
    (tools / "python").unlink()
    write_program(
        tools / "python", f'#!/bin/sh\n[ "$2" = pytest ] && echo "tests: $*" && exit\nexec "{BASE_PYTHON}" "$@"\n'
    )
    result = copy.start("--thorough", "-k", "a b", script=copy.project / "test.sh")
    assert (
        result.stdout.splitlines()[-1]
        == "tests: -m pytest -n 3 --dist loadfile --no-loadscope-reorder --thorough -k a b"
    )
    assert os.path.lexists(copy.project / ".venv") is False
