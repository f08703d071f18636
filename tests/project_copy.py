"""A copy of what start.sh and test.sh need, on a machine with few programs and scripted stand-ins for uv and pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
_MAIN = "import json, os, sys; print(json.dumps({'arguments': sys.argv[1:], 'folder': os.getcwd()}))"
# Makes environments, installs nothing, and writes down what it was asked for.
_UV = f"""\
#!/bin/sh
[ "$1" = --version ] && echo "uv 0.13.8" && exit
echo "$1 $2 index=$UV_DEFAULT_INDEX" >> "$UV_FAKE_CALLS"
if [ "$1" = venv ]; then
  for folder; do :; done
  rm -rf "$folder"
  mkdir -p "$folder/bin" "$folder/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
  ln -s "{BASE_PYTHON}" "$folder/bin/python"
  echo "home = {Path(BASE_PYTHON).parent}" > "$folder/pyvenv.cfg"
  exit
fi
printf '%s\\n' "$UV_FAKE_SAYS"
[ -z "$UV_FAKE_SAYS" ]
"""
#: A pip that installs the uv above and has an address configured.
PIP = """\
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


class ProjectCopy:
    """Args: folder (gets the project, its programs and modules as sub-folders)."""

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
        for name in ("dirname", "ln", "mkdir", "readlink", "rm", "sh"):
            (self.programs / name).symlink_to(shutil.which(name) or "")
        self.add_program("python3", f'#!/bin/sh\nexec "{BASE_PYTHON}" "$@"\n')
        write_program(self._uv, _UV)
        self._modules = folder / "modules"
        self.add_module("pip", "raise SystemExit('No module named pip')")

    def add_program(self, name: str, script: str) -> None:
        write_program(self.programs / name, script)

    def add_uv(self) -> None:
        self.add_program("uv", self._uv.read_text())

    def add_module(self, name: str, source: str) -> None:
        """Put a module that is run with ``python -m`` before Python's own one."""
        file = self._modules / name / "__main__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(source)

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
        fake = {"UV_FAKE_CALLS": str(self._uv_calls), "UV_FAKE": str(self._uv), "PYTHONPATH": str(self._modules)}
        return {"PATH": str(self.programs), "HOME": str(self.project.parent), **fake, **(settings or {})}

    def calls(self) -> list[str]:
        """Return what uv was asked for since the last look, as its first word and the address of its index."""
        lines = self._uv_calls.read_text().splitlines() if self._uv_calls.exists() else []
        self._uv_calls.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


def write_program(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)
