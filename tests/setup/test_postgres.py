"""The tests' own PostgreSQL leaves nothing behind, however they end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

_START = "from tests.postgres import PostgresServer; print(PostgresServer().folder, flush=True); input()"


def test_a_killed_test_run_takes_its_server_along() -> None:
    holder = subprocess.Popen([sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert folder.is_dir()
        assert _processes_of(folder)
        holder.send_signal(signal.SIGKILL)
    give_up_at = time.monotonic() + 60
    while (folder.exists() or _processes_of(folder)) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not folder.exists()
    assert _processes_of(folder) == []


def _processes_of(folder: Path) -> list[int]:
    found = psutil.process_iter(["cmdline"])
    return [process.pid for process in found if any(str(folder) in word for word in process.info["cmdline"] or [])]
