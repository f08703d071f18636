"""The machine at one moment, and who used how much of it between two moments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psutil

from ai_lab.benchmarks.observation.processes import TargetUse
from ai_lab.benchmarks.records import Sample
from ai_lab.telemetry.machine.cgroup import ContainerCpu, ContainerReading
from ai_lab.telemetry.machine.host import READ_ERRORS

_Part = TypeVar("_Part")
_NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of ``cores`` processors together since the machine started; None: not told here."""

    cores: int
    processes: float
    interrupts: float
    idle: float
    steal: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One moment. Whatever is called seconds, events or swapped only grows."""

    at_ns: int
    cpu: CpuTimes | None
    own_seconds: float
    target: TargetUse | None
    container: ContainerReading | None
    memory: Any  # psutil's, for it names no type
    swapped: tuple[int, int] | None
    throttle_events: int | None


def compare(earlier: Reading, later: Reading, *, is_target_here: bool) -> Sample:
    """Return what two readings tell of the time between them.

    CPU of interrupts is in ``cpu_percent`` but nobody's: most of it is the run's own network traffic. Stolen time is
    apart from both. Under a limit of the container 100 % is that limit, and ``other_cpu_percent`` is the larger of
    what others in the container take of the limit and what others take of the processors.

    Args:
        earlier: the first.
        later: the second.
        is_target_here: the target runs on this machine; without its figure there is none of the others.
    """
    sample = Sample(at_ns=later.at_ns, memory_used_bytes=_memory_used(later))
    if earlier.swapped and later.swapped:
        sample.swap_in_bytes, sample.swap_out_bytes = (
            max(0, after - before) for before, after in zip(earlier.swapped, later.swapped, strict=True)
        )
    if earlier.throttle_events is not None and later.throttle_events is not None:
        sample.cpu_throttle_events = max(0, later.throttle_events - earlier.throttle_events)
    if later.target:
        sample.target_rss_bytes = later.target.rss_bytes
    _share_cpu(sample, earlier, later, is_target_here=is_target_here)
    return sample


def _share_cpu(sample: Sample, earlier: Reading, later: Reading, *, is_target_here: bool) -> None:
    elapsed = (later.at_ns - earlier.at_ns) / _NANOSECONDS
    machine = whole = elapsed * (later.cpu.cores if later.cpu else os.cpu_count() or 1)
    limits = _limits(earlier, later)
    if limits:
        whole = min(machine, elapsed * limits[1].limit_cores)
    ours = later.own_seconds - earlier.own_seconds
    sample.client_cpu_percent = _percent(ours, whole)
    known: float | None = None if is_target_here else ours
    if earlier.target and later.target:
        targets = max(0.0, later.target.cpu_seconds - earlier.target.cpu_seconds)
        sample.target_cpu_percent = _percent(targets, whole)
        known = ours + targets
    others: list[float] = []
    # Some systems only pretend to count: then nothing has grown.
    if earlier.cpu and later.cpu and later.cpu.cores == earlier.cpu.cores and later.cpu != earlier.cpu:
        busy = max(0.0, later.cpu.processes - earlier.cpu.processes)
        interrupts = max(0.0, later.cpu.interrupts - earlier.cpu.interrupts)
        sample.cpu_percent = _percent(busy + interrupts, machine)
        if later.cpu.steal is not None and earlier.cpu.steal is not None:
            sample.steal_percent = _percent(later.cpu.steal - earlier.cpu.steal, machine)
        if known is not None:
            others.append(_percent(busy - known, machine))
    if limits:
        used = limits[1].used_seconds - limits[0].used_seconds
        sample.cpu_percent = _percent(used, whole)
        if known is not None:
            others.append(_percent(used - known, whole))
    sample.other_cpu_percent = max(others, default=None)


def cpu_times(numbers: Collection[int]) -> CpuTimes:
    """Return the times of the processors of these numbers, or of all where none is given."""
    cores = psutil.cpu_times(percpu=True)
    ours = [times for number, times in enumerate(cores) if number in numbers] or cores

    def total(*modes: str) -> float:
        return sum(getattr(times, mode, 0.0) for times in ours for mode in modes)

    return CpuTimes(
        cores=len(ours),
        processes=total("user", "nice", "system"),
        interrupts=total("irq", "softirq"),
        idle=total("idle", "iowait"),
        steal=total("steal") if hasattr(ours[0], "steal") else None,
    )


def usable_cores(roots: list[int]) -> set[int]:
    """Return the numbers of the processors that this process or one of ``roots`` may run on; none: not told here."""
    if sys.platform != "linux":
        return set()
    cores = set(os.sched_getaffinity(0))
    for pid in roots:
        cores |= part(partial(os.sched_getaffinity, pid)) or set()
    return cores


def swapped() -> tuple[int, int] | None:
    """Return the bytes swapped in and out since the machine started; elsewhere psutil counts files too, or nothing."""
    if sys.platform != "linux":
        return None
    swap = psutil.swap_memory()
    return swap.sin, swap.sout


def frequency_mhz() -> float | None:
    """Return the mean frequency of the processors; elsewhere the system tells only what is printed on the chip."""
    frequency = psutil.cpu_freq() if sys.platform == "linux" else None
    return frequency.current or None if frequency else None


def part(read: Callable[[], _Part]) -> _Part | None:
    """Return what ``read`` returns; None where this system does not tell."""
    try:
        return read()
    except READ_ERRORS:
        return None


def _percent(seconds: float, whole: float) -> float:
    return min(100.0, max(0.0, 100 * seconds / whole))


def _limits(earlier: Reading, later: Reading) -> tuple[ContainerCpu, ContainerCpu] | None:
    before, after = earlier.container, later.container
    return (before.cpu, after.cpu) if before and after and before.cpu and after.cpu else None


def _memory_used(reading: Reading) -> int | None:
    if reading.container and reading.container.memory:
        return reading.container.memory.working_set_bytes
    return int(reading.memory.total - reading.memory.available) if reading.memory else None
