"""A real server process with a data directory of its own: started, watched, and ended in any way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.preloaded import Program, run_program, start_program

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.005
#: Nothing listens there: a developer's own Ollama must not be found by a test.
_NOWHERE = "http://127.0.0.1:9"


def free_port() -> int:
    """Return a port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def environment(data_dir: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment with ``settings`` and nothing that this machine's user has set for AI Lab."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "SYSTEMROOT") if name in os.environ}
    own = {"HOME": str(data_dir), "AI_LAB_DATA_DIR": str(data_dir), "OLLAMA_HOST": _NOWHERE}
    own |= {
        "AI_LAB_CACHE": "false",
        "AI_LAB_RETRY_WAIT_SECONDS": "0.01",
    }  # tests ask the same again, and are in a hurry
    return kept | own | {"PYTHONUNBUFFERED": "1"} | dict(settings or {})


def working_folder(data_dir: Path) -> Path:
    """Return a folder beside the data whose empty ``.env`` hides the one of the project."""
    folder = data_dir.parent / f"{data_dir.name}.cwd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".env").touch()
    return folder


def run_main(
    data_dir: Path, *arguments: str, settings: Mapping[str, str] | None = None, timeout_seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run ``main.py`` to its end, for starts that are expected to fail."""
    return run_program(
        [str(ROOT / "main.py"), *arguments],
        cwd=working_folder(data_dir),
        env=environment(data_dir, settings),
        timeout_seconds=timeout_seconds,
    )


class ServerProcess:
    """One server over a data directory; it can be started again after its end.

    Args:
        data_dir: made by the server if it is missing.
        settings: environment settings beside AI_LAB_DATA_DIR.
        is_anew: start an interpreter in any case, where memory, environment or the start itself is looked at.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None, *, is_anew: bool = False) -> None:
        self._is_anew = is_anew
        self.data_dir = data_dir
        self.settings = dict(settings or {})
        self.port = free_port()
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self._process: Program | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """Return all that it wrote to standard output and error, over all its starts."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def start(self, wrapper: Sequence[str] = ()) -> float:
        """Start it and wait for the first 200 of ``/health/live``; returns the seconds from the one to the other."""
        folder = working_folder(self.data_dir)
        with self.log_file.open("ab") as log:
            started = time.perf_counter()
            self._process = start_program(
                [str(ROOT / "main.py"), "--port", str(self.port)],
                cwd=folder,
                env=environment(self.data_dir, self.settings),
                streams=(subprocess.DEVNULL, log.fileno(), log.fileno()),
                wrapper=wrapper,
                is_anew=self._is_anew,
            )
        while time.perf_counter() - started < _START_SECONDS:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log[-4000:]}")
            if self._is_alive():
                return time.perf_counter() - started
            time.sleep(_LOOK_SECONDS)
        self.kill()
        raise AssertionError(f"the server was not ready in {_START_SECONDS:g} s:\n{self.log[-4000:]}")

    def send_signal(self, number: int) -> None:
        assert self._process, "not started"
        self._process.send_signal(number)

    def wait(self, timeout_seconds: float = 30) -> int:
        """Wait for its end and return the exit code."""
        assert self._process, "not started"
        return self._process.wait(timeout_seconds)

    def stop(self, timeout_seconds: float = 30) -> int:
        """End it in order and return the exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def kill(self) -> None:
        """End it as a power cut would; does nothing where it has ended."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def children(self) -> list[psutil.Process]:
        """Return its child processes: the engine, where one runs."""
        return psutil.Process(self.pid).children(recursive=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _is_alive(self) -> bool:
        request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                connection.sendall(request)
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
