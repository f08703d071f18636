"""A real terminal with a program in it: a pseudo-terminal of a size that can be changed, typed at and looked at."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.preloaded import start_program

_WAIT_SECONDS = 60.0
_HOME = "\x1b[H"  # a frame of the live view begins at the upper left corner
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One run of a program in a terminal of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(columns, lines)
        self.mode_before = termios.tcgetattr(self._slave)
        self._said = b""
        assert command[0] == sys.executable
        self.process = start_program(
            command[1:],
            cwd=cwd,
            env={"TERM": "xterm-256color", **env},
            streams=(self._slave, self._slave, self._slave),
            takes_terminal=True,
        )

    @property
    def said(self) -> str:
        """All that the program has written, as the terminal gets it."""
        return self._said.decode(errors="replace")

    @property
    def mode(self) -> list[Any]:
        """How the terminal is set: echo, line editing and so on."""
        return termios.tcgetattr(self._slave)

    def frame(self) -> list[str]:
        """Return the lines of the newest whole frame, without colours; empty before there is one.

        A frame is known to be whole once the next one begins, which it does within a second.
        """
        whole = self.said.split(_HOME)[1:-1]
        return _CONTROL.sub("", whole[-1]).split("\r\n") if whole else []

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_for(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Return the first frame for which the condition holds."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            self._read(0.1)
            frame = self.frame()
            if frame and condition(frame):
                return frame
            if self.process.poll() is not None and not self._read(0.1):
                break
        raise AssertionError(
            f"never seen (exit code {self.process.poll()}); the last frame:\n" + "\n".join(self.frame())
        )

    def wait_for_text(self, text: str) -> list[str]:
        return self.wait_for(lambda frame: text in "\n".join(frame))

    def wait_until_said(self, text: str) -> None:
        """Wait for a program that draws no frames."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while text not in self.said:
            assert time.monotonic() < deadline, f"never said {text!r}:\n{self.said[-2000:]}"
            self._read(0.1)

    def ends(self) -> int:
        """Wait for the end of the program and return its exit code."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while self._read(0.1):
            pass
        return self.process.wait(1)

    def hang_up(self) -> None:
        """Close the terminal under the program, as a window or a lost connection does."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        if self._master >= 0:
            os.close(self._master)
        os.close(self._slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if ready:
            self._said += os.read(self._master, 65536)
        return bool(ready)
