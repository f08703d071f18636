"""Measure how long a start takes and how much memory the server and its engine need.

Run: python scripts/measure_footprint.py [--starts 10]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

from scripts.measurement import Row, at_most, pss_bytes, report, spread
from tests.server import ServerProcess

_START_SECONDS, _IMPORT_SECONDS = 1.5, 0.3
_IDLE_MB, _LOADED_MB = 120.0, 450.0
_IDLE_AFTER_SECONDS = 5.0
_IMPORT = "import sys, time; t = time.perf_counter(); import ai_lab; print(time.perf_counter() - t, len(sys.modules))"


def main() -> int:
    """Start, look, chat, look again; returns 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=10)
    options = parser.parse_args()
    imports = [_import() for _ in range(options.starts)]
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder) / "data")
        first = server.start()  # creates the database and warms the disk's cache
        server.stop()
        starts = []
        for _ in range(options.starts):
            starts.append(server.start())
            server.stop()
        server.start()
        time.sleep(_IDLE_AFTER_SECONDS)
        idle = pss_bytes(server.pid) / 1e6
        _chat(server.url)
        serving = pss_bytes(server.pid) / 1e6
        engine = sum(pss_bytes(child.pid) for child in server.children()) / 1e6
        server.stop()
    seconds = [value for value, _ in imports]
    rows = [
        Row("first start, with the database created", f"{first:.2f} s"),
        Row("start to first 200 of /health/live", spread(starts, "s")),
        at_most("start, median", median(starts), _START_SECONDS, "s", 2),
        at_most(f"memory {_IDLE_AFTER_SECONDS:g} s after the start, without the engine (PSS)", idle, _IDLE_MB, "MB"),
        Row("memory after a chat: server, engine (PSS)", f"{serving:.1f} MB, {engine:.1f} MB"),
        at_most("memory after a chat with SmolLM2 loaded, together", serving + engine, _LOADED_MB, "MB"),
        Row("import ai_lab", spread(seconds, "s", 3) + f"; {imports[0][1]} modules"),
        at_most("import ai_lab, median", median(seconds), _IMPORT_SECONDS, "s", 3),
    ]
    return report("Small and quick", rows, ["PSS from /proc/PID/smaps_rollup; MB are 10^6 bytes."])


def _import() -> tuple[float, int]:
    output = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True).stdout
    seconds, modules = output.split()
    return float(seconds), int(modules)


def _chat(url: str) -> None:
    body = {"message": "Tell me a long story about a lighthouse.", "options": {"max_tokens": 256}}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/chat", json.dumps(body).encode(), headers)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - as above
        json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
