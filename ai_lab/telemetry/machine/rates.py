"""What two readings of the machine come to: rates and shares over the time between them.

A counter that went backwards belongs to a device that was replaced or began anew: it gives no figure for this interval,
never a negative one, and a device that was not there before gives none either.
"""

from __future__ import annotations

from ai_lab.telemetry.machine.cgroup import ContainerCpu
from ai_lab.telemetry.machine.host import Counters, HostReading
from ai_lab.telemetry.machine.processes import ProcessReading
from ai_lab.telemetry.schemas import (
    CpuMetrics,
    DiskMetrics,
    GpuBackend,
    GpuMetrics,
    MemoryMetrics,
    NetworkMetrics,
    ProcessMetrics,
    SystemMetrics,
)

_MIB = 1024 * 1024
_JUMP_SECONDS = 1.0
#: The kernel corrects these, by a little and downwards too.
_UNSTEADY_MODES = {"idle", "iowait", "steal"}
_MOST_CORRECTED_SECONDS = 3.0


def counters(reading: HostReading, earlier: Counters | None = None) -> Counters:
    """Return the counters of a reading; small steps backwards since ``earlier`` are held, for they mean no restart."""
    cpu_seconds = {
        (str(number), mode): seconds
        for number, modes in enumerate(reading.cpu_seconds)
        for mode, seconds in modes.items()
    }
    for key, before in earlier.cpu_seconds.items() if earlier else ():
        if 0 < before - cpu_seconds.get(key, before) < _MOST_CORRECTED_SECONDS:
            cpu_seconds[key] = before
    container = reading.container
    cpu, memory = (container.cpu, container.memory) if container else (None, None)
    return Counters(
        cpu_seconds=cpu_seconds,
        disk_read_bytes={name: disk.read_bytes for name, disk in reading.disks.items()},
        disk_written_bytes={name: disk.written_bytes for name, disk in reading.disks.items()},
        network_receive_bytes={name: nic.receive_bytes for name, nic in reading.network.items()},
        network_transmit_bytes={name: nic.transmit_bytes for name, nic in reading.network.items()},
        container_cpu_seconds=cpu.used_seconds if cpu else None,
        container_throttled_seconds=cpu.throttled_seconds if cpu else None,
        container_oom_kills=memory.oom_kills if memory else None,
    )


def is_continuous(earlier: HostReading, later: HostReading) -> bool:
    """Return whether both clocks tell of the same time between two readings: none was set and the machine was awake."""
    by_wall_clock = (later.taken_at - earlier.taken_at).total_seconds()
    return abs(by_wall_clock - (later.monotonic_seconds - earlier.monotonic_seconds)) <= _JUMP_SECONDS


def derive(earlier: HostReading, later: HostReading, gpus: list[GpuMetrics], gpu_backend: GpuBackend) -> SystemMetrics:
    """Return the metrics of the time between two readings, which must be some time apart."""
    seconds = later.monotonic_seconds - earlier.monotonic_seconds
    cpu, memory = _cpu(earlier, later, seconds), _memory(earlier, later, seconds)
    gpu = gpus[0] if gpus else GpuMetrics(index=0)
    before = {process.pid: process for process in (earlier.process, *earlier.children)}
    return SystemMetrics(
        timestamp=later.taken_at,
        sample_age_seconds=0.0,
        cpu_usage_percent=cpu.usage_percent,
        memory_usage_percent=memory.usage_percent,
        memory_usage_bytes=memory.used_bytes,
        gpu_utilization_percent=gpu.utilization_percent,
        gpu_memory_used_mb=_mib(gpu.memory_used_bytes),
        gpu_memory_total_mb=_mib(gpu.memory_total_bytes),
        gpu_temperature_c=gpu.temperature_celsius,
        scope="container" if later.container else "host",
        interval_seconds=seconds,
        cpu=cpu,
        memory=memory,
        filesystems=later.slow.filesystems,
        disks=_disks(earlier, later, seconds),
        network=_network(earlier, later, seconds),
        temperatures=later.slow.temperatures,
        gpus=gpus,
        gpu_backend=gpu_backend,
        process=_process(before, later.process, later, seconds),
        children=[_process(before, child, later, seconds) for child in later.children],
    )


def _cpu(earlier: HostReading, later: HostReading, seconds: float) -> CpuMetrics:
    count = len(later.cpu_seconds) or later.usable_cores
    limit = later.container.cpu if later.container else None
    if limit:
        before = earlier.container.cpu if earlier.container else None
        return _limited_cpu(before, limit, later, count, seconds)
    cores = _core_shares(earlier, later)
    whole = _shares(*(_sum(reading.cpu_seconds) for reading in (earlier, later))) if cores else None
    return CpuMetrics(
        count=count,
        effective_count=later.usable_cores,
        usage_percent=_busy(whole) if whole else None,
        user_percent=_of(whole, "user", "nice"),
        system_percent=_of(whole, "system", "irq", "softirq"),
        iowait_percent=_of(whole, "iowait"),
        steal_percent=_of(whole, "steal"),
        per_core_percent=[_busy(core) for core in cores] if cores else None,
        load_average=later.load_average,
        frequency_mhz=later.slow.frequency_mhz,
        pressure_percent=_share(earlier.pressure_seconds.get("cpu"), later.pressure_seconds.get("cpu"), seconds),
    )


def _limited_cpu(
    before: ContainerCpu | None, after: ContainerCpu, later: HostReading, count: int, seconds: float
) -> CpuMetrics:
    """Return the container's own figures, in percent of its limit; those of the machine are not its business."""
    effective = min(after.limit_cores, later.usable_cores)
    available = seconds * effective
    usage = user = system = throttled = pressure = None
    if before and before.limit_cores == after.limit_cores:  # or another group may be meant
        usage = _share(before.used_seconds, after.used_seconds, available)
        user = _share(before.user_seconds, after.user_seconds, available)
        system = _share(before.system_seconds, after.system_seconds, available)
        periods = _grown(before.periods, after.periods)
        held_back = _grown(before.throttled_periods, after.throttled_periods)
        if periods is not None and held_back is not None:
            throttled = min(100.0, 100 * held_back / periods) if periods else 0.0
        pressure = _share(before.pressure_seconds, after.pressure_seconds, seconds)
    return CpuMetrics(
        count=count,
        effective_count=effective,
        usage_percent=usage,
        user_percent=user,
        system_percent=system,
        frequency_mhz=later.slow.frequency_mhz,
        pressure_percent=pressure,
        limit_cores=after.limit_cores,
        throttled_percent=throttled,
    )


def _core_shares(earlier: HostReading, later: HostReading) -> list[dict[str, float]] | None:
    """Return each core's time by mode in percent, or None when one has no sound interval or cores came or went."""
    if not later.cpu_seconds or len(earlier.cpu_seconds) != len(later.cpu_seconds):
        return None
    cores = [_shares(*pair) for pair in zip(earlier.cpu_seconds, later.cpu_seconds, strict=True)]
    sound = [core for core in cores if core is not None]
    return sound if len(sound) == len(cores) else None


def _shares(earlier: dict[str, float], later: dict[str, float]) -> dict[str, float] | None:
    grown = {mode: seconds - earlier.get(mode, 0.0) for mode, seconds in later.items()}
    if any(seconds < 0 and mode not in _UNSTEADY_MODES for mode, seconds in grown.items()):
        return None
    grown = {mode: max(0.0, seconds) for mode, seconds in grown.items()}
    total = sum(grown.values())
    return {mode: 100 * seconds / total for mode, seconds in grown.items()} if total else None


def _sum(cores: list[dict[str, float]]) -> dict[str, float]:
    return {mode: sum(core[mode] for core in cores) for mode in cores[0]} if cores else {}


def _busy(shares: dict[str, float]) -> float:
    return min(100.0, sum(percent for mode, percent in shares.items() if mode not in {"idle", "iowait"}))


def _of(shares: dict[str, float] | None, *modes: str) -> float | None:
    known = [shares[mode] for mode in modes if mode in shares] if shares else []
    return sum(known) if known else None


def _memory(earlier: HostReading, later: HostReading, seconds: float) -> MemoryMetrics:
    limit = later.container.memory if later.container else None
    if limit is None:
        used = later.memory_total_bytes - later.memory_available_bytes
        return MemoryMetrics(
            total_bytes=later.memory_total_bytes,
            available_bytes=later.memory_available_bytes,
            used_bytes=used,
            usage_percent=100 * used / later.memory_total_bytes,
            swap_total_bytes=later.swap_total_bytes,
            swap_used_bytes=later.swap_used_bytes,
            pressure_percent=_share(
                earlier.pressure_seconds.get("memory"), later.pressure_seconds.get("memory"), seconds
            ),
        )
    before = earlier.container.memory if earlier.container else None
    swaps = [size for size in (limit.swap_limit_bytes, later.swap_total_bytes) if size is not None]
    return MemoryMetrics(
        total_bytes=limit.limit_bytes,
        # The machine may have less left than the limit would allow.
        available_bytes=max(0, min(limit.limit_bytes - limit.working_set_bytes, later.memory_available_bytes)),
        used_bytes=limit.working_set_bytes,
        usage_percent=min(100.0, 100 * limit.working_set_bytes / limit.limit_bytes),
        swap_total_bytes=min(swaps) if swaps and limit.swap_used_bytes is not None else None,
        swap_used_bytes=limit.swap_used_bytes,
        pressure_percent=_share(before.pressure_seconds, limit.pressure_seconds, seconds) if before else None,
        limit_bytes=limit.limit_bytes,
        working_set_bytes=limit.working_set_bytes,
    )


def _disks(earlier: HostReading, later: HostReading, seconds: float) -> list[DiskMetrics]:
    disks = []
    for name, after in later.disks.items():
        before = earlier.disks.get(name)
        read = _grown(before.read_bytes, after.read_bytes) if before else None
        written = _grown(before.written_bytes, after.written_bytes) if before else None
        if before and read is not None and written is not None:
            disks.append(
                DiskMetrics(
                    device=name,
                    read_bytes_per_second=read / seconds,
                    write_bytes_per_second=written / seconds,
                    busy_percent=_share(before.busy_seconds, after.busy_seconds, seconds),
                )
            )
    return disks


def _network(earlier: HostReading, later: HostReading, seconds: float) -> list[NetworkMetrics]:
    interfaces = []
    for name, after in later.network.items():
        before = earlier.network.get(name)
        received = _grown(before.receive_bytes, after.receive_bytes) if before else None
        sent = _grown(before.transmit_bytes, after.transmit_bytes) if before else None
        if received is not None and sent is not None:
            interfaces.append(
                NetworkMetrics(
                    interface=name,
                    receive_bytes_per_second=received / seconds,
                    transmit_bytes_per_second=sent / seconds,
                )
            )
    return interfaces


def _process(
    before: dict[int, ProcessReading], process: ProcessReading, reading: HostReading, seconds: float
) -> ProcessMetrics:
    earlier = before.get(process.pid)
    used = _grown(earlier.cpu_seconds, process.cpu_seconds) if earlier else None
    return ProcessMetrics(
        pid=process.pid,
        name=process.name,
        cpu_percent=None if used is None else 100 * used / seconds,
        rss_bytes=process.rss_bytes,
        threads=process.threads,
        open_files=process.open_files,
        uptime_seconds=max(0.0, reading.monotonic_seconds - process.started_at),
    )


def _grown(before: float | None, after: float | None) -> float | None:
    """Return by how much a counter grew, or None where it is missing or went backwards."""
    return after - before if before is not None and after is not None and after >= before else None


def _share(before: float | None, after: float | None, whole: float) -> float | None:
    """Return growth in percent of ``whole``, at most 100: the two are read a moment apart."""
    grown = _grown(before, after)
    return None if grown is None else min(100.0, 100 * grown / whole)


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / _MIB
