"""No described operation is reached without the token, whatever else a request has (schemathesis: ignored_auth)."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path

from tests.server import ServerProcess

CONFIG = Path(__file__).parents[1] / "fuzz" / "schemathesis.toml"


def test_no_operation_ignores_the_token(tmp_path: Path, *, thorough: bool) -> None:
    token = f"CANARY{secrets.token_hex(16)}"
    settings = {
        "AI_LAB_REQUIRE_TOKEN": "1",
        "AI_LAB_TOKEN": token,
        "AI_LAB_RATE_LIMITS": "false",
        "AI_LAB_DEFAULT_MODEL": "echo/echo",
    }
    with ServerProcess(tmp_path / "data", settings) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
        command += ["run", f"{server.url}/openapi.json", "--no-color", "--continue-on-failure", "--phases", "fuzzing"]
        command += ["--header", f"Authorization: Bearer {token}", "--checks", "ignored_auth,not_a_server_error"]
        command += ["--suppress-health-check", "all", "--max-examples", "40" if thorough else "1"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        refused = len(re.findall(r"status=401", server.log))
        assert refused > 40, "the check has asked for every operation without a token"
