"""Which processes of this machine belong to the server under test, what they use, and who else is busy."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

import psutil

_LARGEST = 3
_ASK_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 2.0  # while nothing is found
_ASK_SHARE = 0.01  # of one processor, at most: finding out who listens on a port costs as much as many looks
_STAT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment; ``reaped_seconds`` is the CPU time of its children that ended and were waited for."""

    parent: int
    name: str
    started: float  # in units of the system; with the number it tells a process from a later one of the same number
    cpu_seconds: float
    reaped_seconds: float
    rss_bytes: int
    is_ended: bool = False  # and its parent has not waited for it yet


@dataclass(frozen=True, slots=True)
class TargetUse:
    """CPU time of the server's processes since the first look at them, and the memory they hold."""

    cpu_seconds: float
    rss_bytes: int


class Processes:
    """Tells the processes of the target from all others.

    Args:
        target_pids: returns the target's root processes.
    """

    def __init__(self, target_pids: Callable[[], list[int]]) -> None:
        self.roots: list[int] = []
        self._target_pids = target_pids
        self._ask_at = 0.0
        self._own = os.getpid()
        self._target: dict[int, float] = {}  # process number: when it started
        self._carried_seconds = 0.0
        self._seen: dict[int, Process] = {}

    def ask(self) -> None:
        """Ask for the root processes where one of them has ended, or where it has been a while."""
        if time.monotonic() < self._ask_at and all(_lives(pid) for pid in self.roots):
            return
        cpu_began = time.thread_time()
        self.roots = [pid for pid in self._target_pids() if _lives(pid)]
        cost_seconds = (time.thread_time() - cpu_began) / _ASK_SHARE
        self._ask_at = time.monotonic() + max(_ASK_SECONDS if self.roots else _ASK_AGAIN_SECONDS, cost_seconds)

    def look(self) -> dict[int, float]:
        """Look for the target's processes among all of this machine.

        Returns:
            CPU seconds since the last look by process number, of all that are neither the target's nor this one;
            nothing at the first look. Those that came and went between two looks are not in it.
        """
        seen = read_all()
        target = {pid: seen[pid].started for pid in _descendants(self.roots, seen, but=self._own) & seen.keys()}
        if target != self._target:
            before, self._target = self._sum(), target
            after = self._sum()
            if before and after:  # what a process used before it was found must not be counted as of now
                self._carried_seconds += before.cpu_seconds - after.cpu_seconds
        others = {
            pid: process.cpu_seconds - self._known_seconds(pid, process)
            for pid, process in seen.items()
            if pid not in target and pid != self._own
        }
        is_first, self._seen = not self._seen, seen
        return {} if is_first else others

    def target(self) -> TargetUse | None:
        """Return what the target uses; None where none of its processes is there or can be read."""
        use = self._sum()
        return use and TargetUse(use.cpu_seconds + self._carried_seconds, use.rss_bytes)

    def largest(self, seconds: dict[int, float]) -> list[tuple[str, float]]:
        """Return the names and CPU seconds of the three busiest processes of a look."""
        busiest = sorted(seconds, key=lambda pid: -seconds[pid])[:_LARGEST]
        return [(_name(pid, self._seen[pid].name), seconds[pid]) for pid in busiest if seconds[pid] > 0]

    def _sum(self) -> TargetUse | None:
        # With the time of children that ended: it moves to the parent when that waits for them, so the sum goes on.
        found = [
            process for pid, started in self._target.items() if (process := read(pid)) and process.started == started
        ]
        if all(process.is_ended for process in found):
            return None
        cpu_seconds = sum(process.cpu_seconds + process.reaped_seconds for process in found)
        return TargetUse(cpu_seconds, sum(process.rss_bytes for process in found))

    def _known_seconds(self, pid: int, process: Process) -> float:
        earlier = self._seen.get(pid)
        return earlier.cpu_seconds if earlier and earlier.started == process.started else 0.0


def read_all() -> dict[int, Process]:
    """Return all processes that this user may see, by number."""
    found = ((pid, read(pid)) for pid in psutil.pids())
    return {pid: process for pid, process in found if process}


def read(pid: int) -> Process | None:
    """Return a process; None where it has ended or may not be read."""
    return _read_linux(pid) if sys.platform == "linux" else _read_elsewhere(pid)


def _read_linux(pid: int) -> Process | None:
    """Read /proc/PID/stat (proc(5)): psutil would need four calls to the kernel and six times the time."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            text = os.read(descriptor, _STAT_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    head, _, rest = text.rpartition(b")")  # the name before it may hold anything
    fields = rest.split()  # from the third of the manual on
    return Process(
        parent=int(fields[1]),
        name=head.partition(b"(")[2].decode(errors="replace"),
        started=float(fields[19]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        reaped_seconds=(int(fields[13]) + int(fields[14])) / _TICKS,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        is_ended=fields[0] == b"Z",
    )


_TICKS = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 1


def _read_elsewhere(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Process(
                parent=process.ppid(),
                name=process.name(),
                started=process.create_time(),
                cpu_seconds=times.user + times.system,
                reaped_seconds=times.children_user + times.children_system,
                rss_bytes=process.memory_info().rss,
            )
    except (psutil.Error, OSError):
        return None


def _lives(pid: int) -> bool:
    process = read(pid)
    return process is not None and not process.is_ended


def _descendants(roots: list[int], seen: dict[int, Process], *, but: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, process in seen.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found and pid != but:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def _name(pid: int, name: str) -> str:
    """Return the program's name, or for Python the script's or module's: "python" alone tells nothing."""
    if not name.lower().startswith("python") or sys.platform != "linux":
        return name
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[1:]
    except OSError:
        return name
    for word, following in itertools.pairwise(words):  # the last one is empty
        if word == "-m":
            return following or name
        if word.endswith(".py"):
            return PurePath(word).stem
        if word == "-c":
            return name
    return name
