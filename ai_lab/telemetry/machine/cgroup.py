"""Limits of the container that this process runs in, from Linux control groups of version 1 and 2.

``/proc`` shows the machine even inside a container; only the control groups know what the container may use. A limit
may be set at any level above the process, and the tightest one holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NANOSECONDS, _MICROSECONDS = 1e9, 1e6


@dataclass(frozen=True, slots=True)
class ContainerCpu:
    """A limit of processor time and what the group under it has used since it was made; None: the kernel says nothing.

    Attributes:
        limit_cores: processors' worth of time per time.
        used_seconds: processor time of all processes of the group.
        periods: spans of the scheduler in which any of them wanted to run.
        throttled_periods: those among them that were cut short by the limit.
        throttled_seconds: time lost to that.
        pressure_seconds: time in which one of them waited for a processor.
    """

    limit_cores: float
    used_seconds: float
    user_seconds: float | None = None
    system_seconds: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
    pressure_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ContainerMemory:
    """A limit of memory and what the group under it holds now; ``working_set_bytes`` leaves out what can be dropped."""

    limit_bytes: int
    working_set_bytes: int
    swap_limit_bytes: int | None = None
    swap_used_bytes: int | None = None
    oom_kills: int | None = None
    pressure_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ContainerReading:
    """Both limits; None for what is not limited below what the machine has."""

    cpu: ContainerCpu | None
    memory: ContainerMemory | None


class ControlGroups:
    """Finds the groups of this process and reads their limits; a system without any has no limits.

    Args:
        root: where ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._membership = ""
        self._levels: dict[str, tuple[bool, list[Path]]] = {}

    def read(self, *, machine_cores: int, machine_memory_bytes: int) -> ContainerReading | None:
        """Return the limits in force, or None where none is tighter than the machine itself."""
        membership = _text(self._root / "proc/self/cgroup")
        if membership is None:
            return None
        if membership != self._membership:
            self._membership, self._levels = membership, {}
        cpu, memory = self._cpu(machine_cores), self._memory(machine_memory_bytes)
        return ContainerReading(cpu, memory) if cpu or memory else None

    def _cpu(self, machine_cores: int) -> ContainerCpu | None:
        is_unified, levels = self._find("cpu")
        read_limit = _unified_cores if is_unified else _legacy_cores
        limits = [(limit, level) for level in levels if (limit := read_limit(level)) and limit < machine_cores]
        if not limits:
            return None
        limit, group = min(limits, key=lambda found: found[0])
        if is_unified:
            return _unified_cpu(limit, group)
        # The accounts are a hierarchy of their own, most often mounted together with the limits.
        depth = len(levels) - levels.index(group)
        accounts = self._find("cpuacct")[1]
        return _legacy_cpu(limit, group, accounts[-depth] if depth <= len(accounts) else accounts[0])

    def _memory(self, machine_bytes: int) -> ContainerMemory | None:
        is_unified, levels = self._find("memory")
        name = "memory.max" if is_unified else "memory.limit_in_bytes"
        limits = [(limit, lvl) for lvl in levels if 0 < (limit := _number(lvl / name) or 0) < machine_bytes]
        if not limits:
            return None
        limit, group = min(limits, key=lambda found: found[0])
        return (_unified_memory if is_unified else _legacy_memory)(limit, group)

    def _find(self, controller: str) -> tuple[bool, list[Path]]:
        """Return whether the controller is of version 2, and the process's groups under it, the innermost first."""
        if controller not in self._levels:
            self._levels[controller] = self._locate(controller)
        return self._levels[controller]

    def _locate(self, controller: str) -> tuple[bool, list[Path]]:
        mounts = self._root / "sys/fs/cgroup"
        unified_path = ""
        for line in self._membership.splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controller in controllers.split(","):
                for name in (controller, controllers):
                    if (mounts / name).is_dir():
                        return False, list(_upwards(mounts / name, path))
            elif number == "0":
                unified_path = path
        mount = mounts if (mounts / "cgroup.controllers").exists() else mounts / "unified"
        return True, list(_upwards(mount, unified_path))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the group at ``path`` and all above it up to the mount.

    Inside a container the path may be the one the host knows, which does not exist here and so holds no limit: what is
    mounted is then the container's own group.
    """
    group = mount / path.strip("/")
    if ".." in group.parts:  # outside of what this process is shown
        group = mount
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _unified_cores(group: Path) -> float | None:
    quota, _, period = (_text(group / "cpu.max") or "").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None


def _legacy_cores(group: Path) -> float | None:
    quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _unified_cpu(limit: float, group: Path) -> ContainerCpu | None:
    stat = _table(group / "cpu.stat")
    used = _seconds(stat.get("usage_usec"), _MICROSECONDS)
    if used is None:
        return None
    return ContainerCpu(
        limit_cores=limit,
        used_seconds=used,
        user_seconds=_seconds(stat.get("user_usec"), _MICROSECONDS),
        system_seconds=_seconds(stat.get("system_usec"), _MICROSECONDS),
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled_seconds=_seconds(stat.get("throttled_usec"), _MICROSECONDS),
        pressure_seconds=pressure_seconds(group / "cpu.pressure"),
    )


def _legacy_cpu(limit: float, group: Path, accounts: Path) -> ContainerCpu | None:
    stat = _table(group / "cpu.stat")
    used = _seconds(_number(accounts / "cpuacct.usage"), _NANOSECONDS)
    if used is None:
        return None
    return ContainerCpu(
        limit_cores=limit,
        used_seconds=used,
        user_seconds=_seconds(_number(accounts / "cpuacct.usage_user"), _NANOSECONDS),
        system_seconds=_seconds(_number(accounts / "cpuacct.usage_sys"), _NANOSECONDS),
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled_seconds=_seconds(stat.get("throttled_time"), _NANOSECONDS),
    )


def _unified_memory(limit: int, group: Path) -> ContainerMemory | None:
    used = _number(group / "memory.current")
    if used is None:
        return None
    return ContainerMemory(
        limit_bytes=limit,
        working_set_bytes=max(0, used - _table(group / "memory.stat").get("inactive_file", 0)),
        swap_limit_bytes=_number(group / "memory.swap.max"),
        swap_used_bytes=_number(group / "memory.swap.current"),
        oom_kills=_table(group / "memory.events").get("oom_kill"),
        pressure_seconds=pressure_seconds(group / "memory.pressure"),
    )


def _legacy_memory(limit: int, group: Path) -> ContainerMemory | None:
    used = _number(group / "memory.usage_in_bytes")
    if used is None:
        return None
    # Version 1 counts memory and swap together.
    both_limit, both_used = (
        _number(group / "memory.memsw.limit_in_bytes"),
        _number(group / "memory.memsw.usage_in_bytes"),
    )
    return ContainerMemory(
        limit_bytes=limit,
        working_set_bytes=max(0, used - _table(group / "memory.stat").get("total_inactive_file", 0)),
        swap_limit_bytes=max(0, both_limit - limit) if both_limit is not None else None,
        swap_used_bytes=max(0, both_used - used) if both_used is not None else None,
        oom_kills=_table(group / "memory.oom_control").get("oom_kill"),
    )


def pressure_seconds(file: Path) -> float | None:
    """Return for how long any task has waited, from a file of pressure stall information; None where there is none."""
    for line in (_text(file) or "").splitlines():
        if line.startswith("some ") and (total := line.rpartition("total=")[2]).isdigit():
            return int(total) / _MICROSECONDS
    return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # absent, switched off or forbidden: all mean that there is nothing to know
        return None


def _number(file: Path) -> int | None:
    """Return the file's number; None for ``max`` and for a file that is not there."""
    text = (_text(file) or "").strip()
    return int(text) if text.removeprefix("-").isdigit() else None


def _table(file: Path) -> dict[str, int]:
    """Return the lines of name and number."""
    pairs = (line.split() for line in (_text(file) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004 - a pair


def _seconds(value: int | None, per_second: float) -> float | None:
    return None if value is None else value / per_second
