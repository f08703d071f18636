"""How much memory this process and its children may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP_FILE = Path("/proc/self/cgroup")
_CGROUP_FOLDER = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return the memory available on the machine, or in the container or service if that is less."""
    available = int(psutil.virtual_memory().available)
    left = _left_in_cgroups()
    return available if left is None else min(available, left)


def _left_in_cgroups() -> int | None:
    """Return what the tightest cgroup (version 2) around this process has left, or None without a limit."""
    try:
        own = _CGROUP_FILE.read_text(encoding="utf-8").rpartition("0::/")[2].strip()
    except OSError:  # not Linux
        return None
    folder = _CGROUP_FOLDER / own
    left = [_left_in(place) for place in (folder, *folder.parents) if place.is_relative_to(_CGROUP_FOLDER)]
    return min((value for value in left if value is not None), default=None)


def _left_in(folder: Path) -> int | None:
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such cgroup, or "max": no limit
        return None
    # The kernel drops cached files before it refuses memory.
    return limit - used + int(counts.get("inactive_file", 0)) + int(counts.get("active_file", 0))
