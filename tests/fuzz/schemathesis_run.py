"""Runs schemathesis over the ``/openapi.json`` of a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.server import ServerProcess

CONFIG = Path(__file__).with_name("schemathesis.toml")
#: What bounds a run is the number of its requests, so that a busy machine tries no less: this only ends one that hangs.
HANGING_SECONDS = 3600


def assert_as_described(folder: Path, *arguments: str) -> None:
    """Send a server what its description allows and what it does not, and see that it does what it says."""
    settings = {"AI_LAB_DEFAULT_MODEL": "echo/echo", "AI_LAB_CONTEXT_TOKENS": "256", "AI_LAB_RATE_LIMITS": "false"}
    with ServerProcess(folder / "data", settings) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
        command += ["run", f"{server.url}/openapi.json", "--no-color", "--continue-on-failure"]
        command += ["--suppress-health-check", "all", *arguments]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        assert "status=500" not in server.log
        print(result.stdout[-1500:])  # noqa: T201 - the figures, for whoever runs it with -s
