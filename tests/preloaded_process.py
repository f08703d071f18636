"""The process behind tests.preloaded: it imports AI Lab once, and becomes each program that a test starts by a fork."""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
#: What the programs import at their start or soon after it.
_MODULES = (
    "backend.server",
    "ai_lab.importer.command",
    "ai_lab.client",
    "ai_lab.providers.embedded",
    "ai_lab.providers.echo",
    "ai_lab.providers.ollama",
    "ai_lab.providers.openai_compatible",
    "alembic.command",
    "alembic.autogenerate",
    "anyio._backends._asyncio",
    "asyncpg",
    "encodings.ascii",
    "encodings.idna",
    "httpx",
    "ollama",
    "rich.live",
    "rich.progress",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "structlog",
    "uvicorn.lifespan.on",
    "uvloop",
)
#: All of their modules.
_PACKAGES = ("ai_lab.cli",)
_NUMBER = struct.Struct("!i")
_STANDARD = 3  # stdin, stdout, stderr


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a program shall be; ``arguments`` are those of the interpreter."""

    arguments: list[str]
    cwd: str
    env: dict[str, str]
    takes_terminal: bool
    descriptors: list[int]  # stdin, stdout, stderr, and where its pid and exit code are told


class _QuickEnd:
    """Ends a program without taking apart all that was imported, which would take longer than a short one runs.

    Made before anything else registers something for the end, it is the last to be called then.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self)

    def __call__(self) -> None:
        if self.code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except (OSError, ValueError):  # a reader that left, a closed stream: the interpreter knows what to do
            return
        os._exit(self.code)

    def run(self, arguments: list[str]) -> None:
        """Run what the interpreter would with these arguments; its end is that of this process."""
        try:
            _run(arguments)
            self.code = 0
        except SystemExit as end:
            self.code = end.code if isinstance(end.code, int) else int(end.code is not None)
            raise
        except Exception:
            self.code = 1
            raise


def import_all() -> None:
    """Import what the programs need.

    Raises:
        RuntimeError: something started a thread, which a fork would not take along.
    """
    gc.disable()
    for name in _MODULES:
        importlib.import_module(name)
    for package in _PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    tasks = Path("/proc/self/task")
    if tasks.exists() and len(list(tasks.iterdir())) > 1:
        raise RuntimeError("an import has started a thread: take its module out of tests/preloaded_process.py")
    gc.collect()
    gc.freeze()  # a collection would otherwise touch, and so copy, every page in every program


def wait_for_work(channel: socket.socket) -> _Wanted | None:
    """Fork for each program that is asked for; returns in each of these, and None here once nobody asks any more."""
    kept = _open_descriptors() - {channel.fileno()}
    waking, woken = socket.socketpair()
    for end in (waking, woken):
        end.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is for the programs
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    told: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([channel, waking], [], [])
        if waking in ready:
            waking.recv(4096)
            _tell_ends(told)
        if channel not in ready:
            continue
        wanted = _receive(channel)
        if wanted is None:
            return None
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if not pid:
            _become(wanted, kept)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a signal sent meanwhile meets the program's handlers
            return wanted
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for descriptor in wanted.descriptors[:_STANDARD]:
            os.close(descriptor)
        told[pid] = socket.socket(fileno=wanted.descriptors[_STANDARD])
        told[pid].sendall(_NUMBER.pack(pid))


def _run(arguments: list[str]) -> None:
    match arguments:
        case ["-c", program, *rest]:
            sys.path[0] = ""
            sys.argv = ["-c", *rest]
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(program, "<string>", "exec"), vars(main))  # noqa: S102 - what the interpreter does with it
        case ["-m", module, *_]:
            sys.path[0] = str(Path.cwd())
            sys.argv = arguments[1:]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [file, *_]:
            sys.path[0] = str(Path(file).parent)
            sys.argv = arguments
            runpy.run_path(file, run_name="__main__")


def _receive(channel: socket.socket) -> _Wanted | None:
    head, descriptors, _, _ = socket.recv_fds(channel, _NUMBER.size, _STANDARD + 1)
    if not head:
        return None
    (length,) = _NUMBER.unpack(head)
    body = b""
    while len(body) < length:
        part = channel.recv(length - len(body))
        if not part:
            return None
        body += part
    return _Wanted(**json.loads(body), descriptors=descriptors)


def _tell_ends(told: dict[int, socket.socket]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with told.pop(pid) as teller:
            try:
                teller.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
            except ConnectionError:  # whoever started it does not want to know
                continue


def _become(wanted: _Wanted, kept: set[int]) -> None:
    """Make this process what ``subprocess`` would have started."""
    if wanted.takes_terminal:
        os.setsid()
    for number, descriptor in enumerate(wanted.descriptors[:_STANDARD]):
        os.dup2(descriptor, number)
    for descriptor in _open_descriptors() - kept:
        if descriptor >= _STANDARD:
            os.close(descriptor)
    if wanted.takes_terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(wanted.cwd)
    os.environ.clear()
    os.environ.update(wanted.env)
    tempfile.tempdir = None  # it was found out in another environment
    _open_streams(is_unbuffered=bool(wanted.env.get("PYTHONUNBUFFERED")))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()


def _open_streams(*, is_unbuffered: bool) -> None:
    """Open the standard streams as the interpreter does at its start: whether they are terminals is known now."""
    sys.stdin = sys.__stdin__ = _stream(0, sys.stdin, is_unbuffered=is_unbuffered)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout, is_unbuffered=is_unbuffered)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr, is_unbuffered=is_unbuffered)  # type: ignore[misc]


def _stream(descriptor: int, old: Any, *, is_unbuffered: bool) -> io.TextIOWrapper:
    buffering = 0 if is_unbuffered and descriptor else -1
    raw = open(descriptor, "wb" if descriptor else "rb", buffering, closefd=False)  # noqa: SIM115 - to the end
    return io.TextIOWrapper(
        raw,
        encoding=old.encoding,
        errors=old.errors,
        newline="\n" if descriptor else None,
        line_buffering=not is_unbuffered and (descriptor == 2 or raw.isatty()),  # standard error in any case
        write_through=is_unbuffered,
    )


def _open_descriptors() -> set[int]:
    """Return the open ones, and perhaps that of looking, which is closed by then."""
    found = {int(name) for name in os.listdir("/dev/fd")}  # noqa: PTH208 - numbers, no paths
    return {descriptor for descriptor in found if _is_open(descriptor)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.path[0] = str(_ROOT)
    end = _QuickEnd()
    import_all()
    asked = wait_for_work(socket.socket(fileno=int(sys.argv[1])))
    if asked:
        end.run(asked.arguments)
