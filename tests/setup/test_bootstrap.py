"""start.sh and test.sh in a copy of the project, with scripted stand-ins for uv, pip and Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_PYTHON = getattr(sys, "_base_executable", sys.executable)
_SAID_BY_UV = "error: fetching https://someone:hunter2@packages.example/simple/ failed\n"
_MAIN = "import json, os, sys; print(json.dumps({'arguments': sys.argv[1:], 'folder': os.getcwd()}))"
# Makes environments with the standard library's venv, installs nothing, and writes down what it was asked for.
_UV = f"""\
#!/bin/sh
[ "$1" = --version ] && echo "uv ${{UV_FAKE_VERSION:-0.13.8}}" && exit
echo "$1 $2 index=$UV_DEFAULT_INDEX" >> "$UV_FAKE_CALLS"
[ "$1" = venv ] && for last; do :; done && rm -rf "$last" && exec "{_PYTHON}" -m venv --without-pip "$last"
printf '%s\\n' "$UV_FAKE_SAYS"
[ -z "$UV_FAKE_SAYS" ]
"""
_PIP = """\
import os, pathlib, shutil, sys
if "config" in sys.argv:
    print("global.index-url='https://global.example/'")
    print(":env:.index-url='https://own.example/'")
if "install" in sys.argv:
    target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1]) / "bin"
    target.mkdir(parents=True)
    shutil.copy(os.environ["UV_FAKE"], target / "uv")
if "--version" in sys.argv:
    print("pip 26")
"""


class Copy:
    """A copy of the project as far as start.sh and test.sh are concerned, on a machine with few programs."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "a lab"
        self.programs = folder / "programs"
        self._uv_calls = folder / "calls"
        self._uv = folder / "uv"
        self.project.mkdir()
        self.programs.mkdir()
        for name in ("start.sh", "test.sh", "scripts/find_python.sh", "scripts/bootstrap.py", "requirements"):
            target = self.project / name
            target.parent.mkdir(exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
        (self.project / "main.py").write_text(_MAIN)
        (self.project / "setup_database.py").write_text("print('database made')")
        (self.project / "ai_lab").mkdir()
        (self.project / "ai_lab" / "__init__.py").touch()
        for name in ("dirname", "readlink", "rm", "sh"):
            (self.programs / name).symlink_to(shutil.which(name) or "")
        self.add_program("python3", f'#!/bin/sh\nexec "{_PYTHON}" "$@"\n')
        _write_program(self._uv, _UV)

    def add_program(self, name: str, script: str) -> None:
        _write_program(self.programs / name, script)

    def add_uv(self) -> None:
        self.add_program("uv", self._uv.read_text())

    def add_module(self, name: str, source: str) -> dict[str, str]:
        """Put a module before Python's own one; returns the setting that does so."""
        file = self.project.parent / "modules" / name / "__main__.py"
        file.parent.mkdir(parents=True)
        (file.parent / "__init__.py").touch()
        file.write_text(source)
        return {"PYTHONPATH": str(file.parent.parent)}

    def start(
        self, *arguments: str, script: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(script or self.project / "start.sh"), *arguments],
            cwd=self.project.parent,
            env=self.environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        fake = {"UV_FAKE_CALLS": str(self._uv_calls), "UV_FAKE": str(self._uv)}
        return {"PATH": str(self.programs), "HOME": str(self.project.parent), **fake, **(settings or {})}

    def calls(self) -> list[str]:
        """Return what uv was asked for since the last look, as its first word and the address of its index."""
        lines = self._uv_calls.read_text().splitlines() if self._uv_calls.exists() else []
        self._uv_calls.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


def _write_program(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture
def started(copy: Copy) -> Copy:
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
    copy: Copy, version: str | None, words: str, script: str
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


def test_a_newer_python_is_found_behind_old_and_broken_ones(copy: Copy) -> None:
    copy.add_uv()
    copy.add_program("python", (copy.programs / "python3").read_text())
    copy.add_program("python3", "#!/bin/sh\necho 3.9\n")
    copy.add_program("python3.13", "#!/bin/sh\nexit 127\n")
    assert copy.start().returncode == 0


def test_help_installs_nothing_and_names_every_option(copy: Copy) -> None:
    result = copy.start("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert not (copy.project / ".venv").exists()
    assert not (copy.project / ".tools").exists()
    of_main = subprocess.run([sys.executable, ROOT / "main.py", "--help"], capture_output=True, text=True, check=True)
    assert set(re.findall(r"--[a-z]+", of_main.stdout)) <= set(re.findall(r"--[a-z]+", result.stdout))


def test_the_first_start_installs_and_a_second_one_does_nothing_again(copy: Copy, tmp_path: Path) -> None:
    copy.add_uv()
    (tmp_path / "lab").symlink_to("a lab/start.sh")
    first = copy.start("--port", "9 1", script=tmp_path / "lab")
    assert json.loads(first.stdout) == {"arguments": ["--port", "9 1"], "folder": str(tmp_path)}
    assert re.findall(r"^\d/4", first.stderr, re.MULTILINE) == ["1/4", "2/4", "3/4", "4/4"]
    assert copy.calls() == ["venv", "pip"]

    second = copy.start("--port", "9 1")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert copy.calls() == []


def test_the_project_can_be_imported_from_anywhere(started: Copy) -> None:
    python = started.project / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", "import ai_lab"], cwd="/", check=True)


def test_setup_makes_the_database_and_does_not_serve(copy: Copy) -> None:
    copy.add_uv()
    assert copy.start("--setup").stdout == "database made\n"


def test_a_changed_lock_is_installed_into_the_same_environment(started: Copy) -> None:
    with (started.project / "requirements" / "runtime.lock").open("a") as lock:
        lock.write("# changed\n")
    assert started.start().returncode == 0
    assert started.calls() == ["pip"]


def test_a_moved_project_finds_itself_again(started: Copy) -> None:
    started.project = started.project.rename(started.project.with_name("elsewhere"))
    assert started.start().returncode == 0
    python = started.project / ".venv" / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import ai_lab; print(ai_lab.__file__)"], cwd="/", capture_output=True, check=True
    )
    assert b"elsewhere" in found.stdout


def test_an_environment_whose_python_was_removed_is_made_anew(started: Copy) -> None:
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
        ("error: rich==1 has no wheels with a matching platform tag", "no ready-made build"),
        ("error: something new", "remove .tools"),
    ],
)
def test_a_failed_install_is_explained_and_finished_by_the_next_start(copy: Copy, said: str, remedy: str) -> None:
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


def test_two_first_starts_at_once_install_once(copy: Copy) -> None:
    copy.add_uv()
    command: dict[str, Any] = {"env": copy.environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    starts = [subprocess.Popen([copy.project / "start.sh"], **command) for _ in range(3)]
    assert [start.wait(timeout=60) for start in starts] == [0, 0, 0]
    assert copy.calls() == ["venv", "pip"]


@pytest.mark.parametrize("on_path", ["none", "too old"])
def test_uv_is_fetched_once_into_a_private_folder(copy: Copy, on_path: str) -> None:
    if on_path == "too old":
        copy.add_program("uv", "#!/bin/sh\necho uv 0.1.0\n")
    pip = copy.add_module("pip", _PIP)
    assert copy.start(settings=pip).returncode == 0
    (private,) = (copy.project / ".tools").glob("uv-*/bin/uv")
    assert copy.calls() == ["venv", "pip"]
    shutil.rmtree(copy.project / ".venv")
    assert copy.start().returncode == 0  # no pip this time
    assert private.exists()


def test_without_pip_and_venv_one_line_says_what_to_install(copy: Copy) -> None:
    modules = copy.add_module("pip", "raise SystemExit('No module named pip')")
    copy.add_module("venv", "raise SystemExit('ensurepip is not available')")
    result = copy.start(settings=modules)
    assert result.returncode == 2
    assert "apt install python3-venv" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "index"),
    [({}, "https://own.example/"), ({"UV_DEFAULT_INDEX": "https://uv.example/"}, "https://uv.example/")],
)
def test_uv_goes_where_pip_goes_unless_it_was_told_otherwise(copy: Copy, settings: dict[str, str], index: str) -> None:
    copy.add_uv()
    result = copy.start(settings=copy.add_module("pip", _PIP) | settings)
    assert f"index={index}" in (copy.project.parent / "calls").read_text()
    assert "example" not in result.stderr
    written = [path for path in copy.project.rglob("*") if path.is_file() and b"own.example" in path.read_bytes()]
    assert written == []


def test_test_sh_stops_at_the_step_that_failed_and_names_it(copy: Copy) -> None:
    copy.add_uv()
    tools = copy.project / ".venv-test" / "bin"
    assert copy.start(script=copy.project / "test.sh").returncode == 1  # nothing was really installed
    _write_program(tools / "ruff", "#!/bin/sh\n[ $1 = format ]\n")
    _write_program(tools / "mypy", "#!/bin/sh\necho mypy ran\n")
    result = copy.start(script=copy.project / "test.sh")
    assert result.returncode == 1
    assert "this step failed: ruff check ." in result.stderr
    assert "mypy ran" not in result.stdout

    _write_program(tools / "ruff", "#!/bin/sh\n")
    _write_program(tools / "lint-imports", "#!/bin/sh\n")
    (tools / "python").unlink()
    _write_program(
        tools / "python", f'#!/bin/sh\n[ "$2" = pytest ] && echo "tests: $*" && exit\nexec "{_PYTHON}" "$@"\n'
    )
    result = copy.start("--thorough", "-k", "a b", script=copy.project / "test.sh")
    assert result.stdout.splitlines()[-1] == "tests: -m pytest --thorough -k a b"
    assert os.path.lexists(copy.project / ".venv") is False
