"""What this process and its children use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import psutil

_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One process at one moment; ``started_at`` is by the monotonic clock, which nobody can set."""

    pid: int
    name: str
    started_at: float
    cpu_seconds: float
    rss_bytes: int
    threads: int | None
    open_files: int | None


class Processes:
    """Reads this process and those it has started."""

    def __init__(self) -> None:
        self._started_at: dict[int, float] = {}
        self._children: list[int] = []
        self._kernel_lists_children = (_TASKS / str(os.getpid()) / "children").exists()

    def read(self, *, thorough: bool) -> tuple[ProcessReading, list[ProcessReading]]:
        """Return this process and its children; one that ends meanwhile is left out.

        Args:
            thorough: look for new children even where all processes of the machine must be asked for their parent.

        Raises:
            psutil.Error: this process itself cannot be read.
        """
        if self._kernel_lists_children:
            self._children = list(_listed_children())
        elif thorough:
            self._children = [child.pid for child in psutil.Process().children()]
        own = self._read(os.getpid())
        children = []
        for pid in self._children:
            try:
                children.append(self._read(pid))
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended, or become somebody else's
                self._started_at.pop(pid, None)
        alive = {own.pid, *(child.pid for child in children)}
        self._started_at = {pid: moment for pid, moment in self._started_at.items() if pid in alive}
        return own, children

    def _read(self, pid: int) -> ProcessReading:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                raise psutil.ZombieProcess(pid)
            if pid not in self._started_at:
                self._started_at[pid] = time.monotonic() - max(0.0, time.time() - process.create_time())
            times = process.cpu_times()
            return ProcessReading(
                pid=pid,
                name=_name(process),
                started_at=self._started_at[pid],
                cpu_seconds=times.user + times.system,
                rss_bytes=process.memory_info().rss,
                threads=process.num_threads(),
                open_files=_open_files(process),
            )


def _listed_children() -> Iterator[int]:
    for task in _TASKS.iterdir():
        try:
            pids = (task / "children").read_text(encoding="ascii").split()
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended; another one has its children now
            continue
        yield from map(int, pids)


def _name(process: psutil.Process) -> str:
    """Return the program's name, or for a Python script the script's: half a dozen called "python" tell nothing."""
    name = process.name()
    if not name.lower().startswith("python"):
        return name
    return next((PurePath(word).stem for word in process.cmdline()[1:] if word.endswith(".py")), name)


def _open_files(process: psutil.Process) -> int | None:
    try:
        return process.num_fds()
    except (psutil.AccessDenied, AttributeError):  # not ours to see; Windows counts no such thing
        return None
