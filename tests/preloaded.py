"""Programs that start in a hundredth of a second: forks of one process that has imported all of AI Lab already.

Starting ``main.py`` takes about 1.5 s of processor time, nearly all of it for imports; tests start it hundreds of
times. A forked program is a process like any other, but it has the command line of the process it is a fork of, its
memory, and its environment as far as ``/proc/<pid>/environ`` shows it. Nothing is forked unless tests.conftest says so
(scripts that measure get real starts), nor where the environment has something that the interpreter reads at its start.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

_PROCESS = Path(__file__).with_name("preloaded_process.py")
_NUMBER = struct.Struct("!i")
#: Makes the terminal the program's own, so that Ctrl-C and a new size reach it as signals.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
#: Names in the environment that count when an interpreter or a library is loaded.
_EARLY = ("PYTHON", "LD_", "DYLD_", "LC_", "MALLOC_", "TZ", "TERMINAL_WIDTH", "OTEL_", "OPENSSL_")
_KEPT = ("PATH", "LANG", "TMPDIR")


class ForkedProgram:
    """What ``subprocess.Popen`` is for a program of its own; may be used by several threads."""

    def __init__(self, arguments: Sequence[str], told: socket.socket) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._told = told.detach()
        weakref.finalize(self, os.close, self._told)
        self._lock = threading.Lock()
        self.pid = self._number()

    def poll(self) -> int | None:
        """Return its exit code, the negative number of the signal that ended it, or None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._told], [], [], 0)[0]:
                self.returncode = self._number()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self.returncode is None:
            select.select([self._told], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Do nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended this moment
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _number(self) -> int:
        said = os.read(self._told, _NUMBER.size)
        if len(said) < _NUMBER.size:
            raise RuntimeError("the process that forks programs has ended; its standard error says why")
        number: int = _NUMBER.unpack(said)[0]
        return number


#: A program that a test has started, either way.
Program = subprocess.Popen[bytes] | ForkedProgram


class _Forker:
    """The process with everything imported; started when the first program is wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self, wanted: Mapping[str, object], arguments: Sequence[str], streams: Sequence[int]) -> ForkedProgram:
        mine, its = socket.socketpair()
        body = json.dumps(wanted).encode()
        with its, self._lock:
            channel = self._channel or self._start()
            socket.send_fds(channel, [_NUMBER.pack(len(body))], [*streams, its.fileno()])
            channel.sendall(body)
        return ForkedProgram(arguments, mine)

    def close(self) -> None:
        """End it; programs go on."""
        if self._process and self._channel:
            self._channel.close()
            self._process.wait(30)

    def _start(self) -> socket.socket:
        mine, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROCESS), str(its.fileno())],
                cwd=_PROCESS.parent,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        self._channel = mine
        return mine


_forkers: list[_Forker] = []


@contextlib.contextmanager
def preloading() -> Iterator[None]:
    """Have programs forked from now on; does nothing on a system without forks."""
    if not hasattr(os, "fork"):
        yield
        return
    forker = _Forker()
    _forkers.append(forker)
    try:
        yield
    finally:
        _forkers.remove(forker)
        forker.close()


def start_program(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    takes_terminal: bool = False,
    wrapper: Sequence[str] = (),
    is_anew: bool = False,
) -> Program:
    """Start Python with ``arguments``: a file, ``-m`` and a module, or ``-c`` and a text; then those of the program.

    Args:
        arguments: what would follow ``sys.executable``.
        cwd: of the program.
        env: all of it.
        streams: descriptors (or ``subprocess.DEVNULL``) of stdin, stdout and stderr; they stay open here.
        takes_terminal: make stdin, a terminal, its own in a session of its own, so that Ctrl-C reaches it.
        wrapper: a command that starts the interpreter.
        is_anew: have an interpreter of its own, where memory, imports, command line or the start are looked at.
    """
    if is_anew or wrapper or not (_forkers and is_forkable(arguments, env)):
        own = ["-c", _TAKE_TERMINAL, sys.executable] if takes_terminal else []
        return subprocess.Popen(
            [*wrapper, sys.executable, *own, *arguments],
            cwd=cwd,
            env=env,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            start_new_session=takes_terminal,
        )
    wanted = {
        "arguments": list(arguments),
        "cwd": str(cwd),
        "env": dict(env),
        "takes_terminal": takes_terminal,
    }
    with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123 - a device, no path
        used = [nowhere.fileno() if stream == subprocess.DEVNULL else stream for stream in streams]
        return _forkers[-1].start(wanted, arguments, used)


def run_program(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_seconds: float = 60,
    is_anew: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run Python with ``arguments`` to its end, without input, and return what it said.

    Raises:
        subprocess.TimeoutExpired: it was ended after that many seconds.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        streams = (subprocess.DEVNULL, out.fileno(), err.fileno())
        process = start_program(arguments, cwd=cwd, env=env, streams=streams, is_anew=is_anew)
        try:
            code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess([sys.executable, *arguments], code, out.read(), err.read())


def is_forkable(arguments: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a fork does the same as a start: nothing that counts earlier is asked for."""
    is_known = arguments[0] in {"-c", "-m"} or arguments[0].endswith(".py")
    early = {name for name in env if name.startswith(_EARLY)} - {"PYTHONUNBUFFERED"}
    return is_known and not early and env.get("LANG") == os.environ.get("LANG")
