"""llm-katan, a fake of several services that others wrote: it echoes the question in the format of each."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.server import environment, free_port

#: The keys that it takes, by the names that it has for the formats.
KEYS = {
    "openai": "katan-openai-key",
    "anthropic": "katan-anthropic-key",
    "vertexai": "katan-vertexai-key",
    "azure_openai": "katan-azure-key",
}
_START_SECONDS = 60.0


@contextlib.contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run one with these ``options`` besides and give its address; it starts in less than a second.

    Options of use: ``--rate-limit-after N``, ``--timeout-after N``, ``--error-rate 1``, ``--chunk-delay-ms N``.
    """
    port = free_port()
    keys = ",".join(f"{name}={key}" for name, key in KEYS.items())
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--model", "katan", "--backend", "echo", "--host", "127.0.0.1", "--port", str(port)]
        arguments += ["--providers", ",".join(KEYS), "--validate-keys", "--api-keys", keys, "--disable-dashboard"]
        arguments += ["--stats-file", str(Path(folder) / "stats.json"), "--log-level", "ERROR", "--max-concurrent", "8"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from llm_katan.cli import main; main()", *arguments, *options],
            env=environment(Path(folder)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    late = time.monotonic() + _START_SECONDS
    while time.monotonic() < late and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/health", trust_env=False).is_success:
                return
        time.sleep(0.02)
    raise AssertionError("llm-katan does not start")
