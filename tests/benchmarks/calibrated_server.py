"""A model server whose timing is known: it writes at due times and logs when it really wrote.

It speaks Ollama, OpenAI and llama-server, in a process of its own, with the stamps of ``time.perf_counter_ns``: on
Linux that is one clock over all processes, so that stamps of a client and of the server can be held together.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.calibrated_settings import MODEL, Calibration, Flavour

__all__ = ["MODEL", "CalibratedServer", "Calibration", "Flavour", "Logged"]
_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Logged:
    """A request as the server saw it; the lists have one item per chunk of text or reasoning.

    Attributes:
        number: of its arrival since the start or the latest ``configure``.
        body: what was asked, without the prompt.
        load_ms: what loading was reported to take.
        start_ns: its turn; due times count from there.
        before_ns: stamps right before each write, after_ns: right after.
        ending: complete, client left, a fault, or None where it goes on.
    """

    number: int
    path: str
    prompt_sha256: str
    prompt_tokens: int
    cached_tokens: int
    body: dict[str, Any]
    load_ms: float
    arrival_ns: int
    start_ns: int
    due_ns: list[int]
    before_ns: list[int]
    after_ns: list[int]
    tokens: list[int]
    reasoning: list[bool]
    ending: str | None = None
    ended_ns: int | None = None


class CalibratedServer:
    """A running server; use as ``with``.

    Args:
        calibration: names and values of ``Calibration``.
    """

    def __init__(self, **calibration: Any) -> None:
        self._calibration = Calibration(**calibration)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """Return the number of its process."""
        assert self._process, "not started"
        return self._process.pid

    def configure(self, **changes: Any) -> None:
        """Change how it answers requests that arrive from now on; their numbers begin at 0 again."""
        self._call("/calibration/config", changes)

    def reset(self) -> None:
        """Make it as it was after its start: calibration, loaded models, empty caches and log."""
        self._call("/calibration/reset", asdict(self._calibration))

    def clear(self) -> None:
        """Forget the log."""
        self._call("/calibration/clear", {})

    def evict(self) -> None:
        """Unload all models, as Ollama does when another one needs the memory."""
        self._call("/calibration/evict", {})

    def log(self) -> list[Logged]:
        """Return all requests that were answered, in order of arrival."""
        return [Logged(**entry) for entry in self._call("/calibration/log")["requests"]]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.calibrated_program", json.dumps(asdict(self._calibration))],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        port = self._process.stdout.readline().decode().strip()
        if not port:
            self.__exit__()
            raise AssertionError("the calibrated server did not start; see its error above")
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(_TIMEOUT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310 - our own address
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - our own address
            return json.load(answer)
