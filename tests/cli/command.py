"""The real ``ai-lab`` command in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.preloaded import run_program
from tests.server import environment, working_folder

COMMAND = (sys.executable, "-m", "ai_lab.cli")


def run_command(
    folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with output that is no terminal."""
    return run_program([*COMMAND[1:], *arguments], cwd=working_folder(folder), env=environment(folder, settings))
