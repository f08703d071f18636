"""How soon the server is ready, how much memory it holds with and without the engine, how long ``import ai_lab`` takes.

Memory is the proportional set size (PSS) of the process and its children, from /proc, so this runs on Linux.
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

import psutil
from figures import Report, median

from tests.server import ServerProcess

_SETTLE_SECONDS = 2.0


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=11)
    starts = parser.parse_args().starts
    report = Report("Start and memory")
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder) / "data")
        first = server.start()
        server.stop()
        seconds = []
        for _ in range(starts):
            seconds.append(server.start())
            server.stop()
        report.add("first start, database created", f"{first:.2f} s")
        report.add(
            f"start to first 200, median of {starts}",
            f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})",
            "<= 1.5 s",
            holds=median(seconds) <= 1.5,
        )
        server.start()
        time.sleep(_SETTLE_SECONDS)
        idle = _pss_mb(server.pid)
        report.add("idle, engine not started (PSS)", f"{idle:.0f} MB", "<= 120 MB", holds=idle <= 120)
        _chat(server.url)
        time.sleep(_SETTLE_SECONDS)
        loaded = _pss_mb(server.pid)
        report.add("after a chat with SmolLM2 (PSS, all)", f"{loaded:.0f} MB", "<= 450 MB", holds=loaded <= 450)
        server.stop()
    imports = [_import_seconds() for _ in range(starts)]
    report.add(
        f"import ai_lab, median of {starts}",
        f"{median(imports) * 1000:.0f} ms",
        "<= 300 ms",
        holds=median(imports) <= 0.3,
    )
    return report.finish()


def _chat(url: str) -> None:
    body = json.dumps({"message": "What is a llama?", "options": {"max_tokens": 64}}).encode()
    request = urllib.request.Request(f"{url}/chat", body, {"Content-Type": "application/json"})  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
        json.load(answer)


def _pss_mb(pid: int) -> float:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def _import_seconds() -> float:
    program = "import time; t = time.perf_counter(); import ai_lab; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
