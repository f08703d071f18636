"""Readings of a machine that does not exist, and files of one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ai_lab.telemetry.machine.devices import DiskCounters, NetworkCounters
from ai_lab.telemetry.machine.host import HostReading, SlowReading
from ai_lab.telemetry.machine.processes import ProcessReading

GIB = 1024**3
_BEGAN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
IDLE = {
    "user": 50.0,
    "nice": 0.0,
    "system": 20.0,
    "idle": 900.0,
    "iowait": 5.0,
    "irq": 0.0,
    "softirq": 1.0,
    "steal": 2.0,
}


def core(**growth: float) -> dict[str, float]:
    """Return one core's counters, grown by so many seconds in each mode."""
    return {mode: seconds + growth.get(mode, 0.0) for mode, seconds in IDLE.items()}


def process(pid: int = 1000, cpu_seconds: float = 3.0, **changes: Any) -> ProcessReading:
    """Return a process that began at second 0 of the monotonic clock."""
    made = ProcessReading(
        pid=pid, name="lab", started_at=0.0, cpu_seconds=cpu_seconds, rss_bytes=GIB, threads=4, open_files=20
    )
    return replace(made, **changes)


def reading(seconds: float = 0.0, **changes: Any) -> HostReading:
    """Return a reading of a machine with two cores and 8 GiB, ``seconds`` after the first."""
    made = HostReading(
        taken_at=_BEGAN + timedelta(seconds=seconds),
        monotonic_seconds=100.0 + seconds,
        cpu_seconds=[core(), core()],
        usable_cores=2,
        load_average=[0.5, 0.25, 0.125],
        memory_total_bytes=8 * GIB,
        memory_available_bytes=6 * GIB,
        swap_total_bytes=GIB,
        swap_used_bytes=0,
        pressure_seconds={"cpu": 1.0, "memory": 0.5},
        disks={"sda": DiskCounters(10_000, 20_000, 4.0)},
        network={"eth0": NetworkCounters(5_000, 6_000)},
        container=None,
        process=process(),
        children=[],
        slow=SlowReading(taken_at=100.0, filesystems=[], temperatures=[], frequency_mhz=None),
    )
    return replace(made, **changes)


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files below ``root`` and return it."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root
