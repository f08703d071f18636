"""What ``/openapi.json`` says is what the server does, whatever it is sent."""

import subprocess
import sys
from pathlib import Path

from tests.server import ServerProcess

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_no_request_breaks_the_server_or_the_description(tmp_path: Path, *, thorough: bool) -> None:
    settings = {"AI_LAB_DEFAULT_MODEL": "echo/echo", "AI_LAB_CONTEXT_TOKENS": "256", "AI_LAB_RATE_LIMITS": "false"}
    with ServerProcess(tmp_path / "data", settings) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
        command += ["run", f"{server.url}/openapi.json", "--no-color", "--continue-on-failure"]
        command += ["--suppress-health-check", "all", "--max-examples", "400" if thorough else "15"]
        result = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=3000 if thorough else 170, check=False
        )
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        assert "status=500" not in server.log
        print(result.stdout[-1500:])  # noqa: T201 - the figures, for whoever runs it with -s
