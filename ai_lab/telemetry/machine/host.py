"""Reading the machine: cumulative counters and present values, as they are. What they come to is in ``rates.py``.

A part that cannot be read here is absent, and the others are read all the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import psutil

from ai_lab.clock import now
from ai_lab.telemetry.machine.cgroup import ContainerReading, ControlGroups, pressure_seconds
from ai_lab.telemetry.machine.devices import (
    DiskCounters,
    NetworkCounters,
    read_disks,
    read_filesystems,
    read_network,
    read_temperatures,
)
from ai_lab.telemetry.machine.processes import Processes, ProcessReading
from ai_lab.telemetry.schemas import FilesystemMetrics, TemperatureMetrics

_Part = TypeVar("_Part")

#: What asking a system that one does not know may raise: files of a foreign form, calls that it does not have.
READ_ERRORS = (
    OSError,
    psutil.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
#: What changes slowly or costs much is read this often: filesystems, temperatures, frequency.
SLOW_SECONDS = 14.5  # every third tick of 5 s, each of which may be a little early
# Guest time is in user time already; on Windows the time of interrupts is in system time.
_COUNTED_ELSEWHERE = {"guest", "guest_nice", "interrupt", "dpc"}


@dataclass(frozen=True, slots=True)
class SlowReading:
    """What is read less often; ``faults`` as in ``HostReading``, and they last as long."""

    taken_at: float
    filesystems: list[FilesystemMetrics]
    temperatures: list[TemperatureMetrics]
    frequency_mhz: float | None
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostReading:
    """The machine at one moment; whatever is called seconds or counters only grows until a device is replaced.

    Attributes:
        cpu_seconds: by logical processor, mode -> seconds; empty where it cannot be read.
        usable_cores: processors this process may run on.
        pressure_seconds: by resource, time in which any task waited for it.
        faults: by part that could not be read, the error's type.
    """

    taken_at: datetime
    monotonic_seconds: float
    cpu_seconds: list[dict[str, float]]
    usable_cores: int
    load_average: list[float] | None
    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int | None
    swap_used_bytes: int | None
    pressure_seconds: dict[str, float]
    disks: dict[str, DiskCounters]
    network: dict[str, NetworkCounters]
    container: ContainerReading | None
    process: ProcessReading
    children: list[ProcessReading]
    slow: SlowReading
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counters:
    """What Prometheus is given: values since the system or the container started, which it makes rates of itself.

    Attributes:
        cpu_seconds: of the machine, by (number of the logical processor, mode).
        disk_read_bytes, disk_written_bytes: by device.
        network_receive_bytes, network_transmit_bytes: by interface.
        container_cpu_seconds, container_throttled_seconds: None without a processor limit.
        container_oom_kills: None without a memory limit.
    """

    cpu_seconds: dict[tuple[str, str], float]
    disk_read_bytes: dict[str, int]
    disk_written_bytes: dict[str, int]
    network_receive_bytes: dict[str, int]
    network_transmit_bytes: dict[str, int]
    container_cpu_seconds: float | None = None
    container_throttled_seconds: float | None = None
    container_oom_kills: int | None = None


class HostReader:
    """Reads the machine, one reading per call, in about a millisecond.

    Args:
        root: where ``proc/pressure`` and the control groups are; the rest comes from psutil.
        wall_clock: returns the time, aware, in UTC.
    """

    def __init__(self, root: Path = Path("/"), *, wall_clock: Callable[[], datetime] = now) -> None:
        self._wall_clock = wall_clock
        self._pressure = root / "proc/pressure"
        self._groups = ControlGroups(root)
        self._processes = Processes()
        self._slow: SlowReading | None = None

    def read(self) -> HostReading:
        """Return a reading.

        Raises:
            OSError, psutil.Error and others of ``READ_ERRORS``: neither memory nor this process can be read.
        """
        faults: dict[str, str] = {}

        def part(name: str, read: Callable[[], _Part], faults: dict[str, str] = faults) -> _Part | None:
            try:
                return read()
            except READ_ERRORS as error:
                faults[name] = type(error).__name__
                return None

        taken_at, moment = self._wall_clock(), time.monotonic()
        cpu_seconds = part("cpu", _cpu_seconds) or []
        disks = part("disks", read_disks) or {}
        network = part("network", read_network) or {}
        memory = psutil.virtual_memory()
        swap_total, swap_used = part("swap", _swap) or (None, None)
        cores = len(cpu_seconds) or os.cpu_count() or 1
        container = self._groups.read(machine_cores=cores, machine_memory_bytes=memory.total)
        is_slow_due = self._slow is None or moment - self._slow.taken_at >= SLOW_SECONDS
        process, children = self._processes.read(thorough=is_slow_due)
        if self._slow is None or is_slow_due:
            slow_faults: dict[str, str] = {}
            self._slow = SlowReading(
                taken_at=moment,
                filesystems=part("filesystems", read_filesystems, slow_faults) or [],
                temperatures=part("temperatures", read_temperatures, slow_faults) or [],
                frequency_mhz=part("frequency", _frequency_mhz, slow_faults),
                faults=slow_faults,
            )
        return HostReading(
            taken_at=taken_at,
            monotonic_seconds=moment,
            cpu_seconds=cpu_seconds,
            usable_cores=_usable_cores(cores),
            load_average=part("load", _load_average),
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            swap_total_bytes=swap_total,
            swap_used_bytes=swap_used,
            pressure_seconds={
                name: seconds
                for name in ("cpu", "memory")
                if (seconds := pressure_seconds(self._pressure / name)) is not None
            },
            disks=disks,
            network=network,
            container=container,
            process=process,
            children=children,
            slow=self._slow,
            faults=faults | self._slow.faults,
        )


def _cpu_seconds() -> list[dict[str, float]]:
    cores = psutil.cpu_times(percpu=True)
    modes = [mode for mode in cores[0]._fields if mode not in _COUNTED_ELSEWHERE]
    return [{mode: getattr(core, mode) for mode in modes} for core in cores]


def _usable_cores(cores: int) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores


def _load_average() -> list[float] | None:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def _swap() -> tuple[int | None, int | None]:
    swap = psutil.swap_memory()
    return swap.total, swap.used


def _frequency_mhz() -> float | None:
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return frequency.current or None if frequency else None
