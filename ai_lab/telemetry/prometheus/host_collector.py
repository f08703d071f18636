"""The sampler's latest snapshot as metrics. A scrape reads no device; what the machine does not tell has no series."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Protocol

from ai_lab.telemetry.machine.sampler import Snapshot, SourceStatus
from ai_lab.telemetry.prometheus.families import PREFIX
from ai_lab.telemetry.prometheus.registry import OTHER, Reading
from ai_lab.telemetry.schemas import GpuMetrics, SystemMetrics

_MEGA = 1e6
_STALE_INTERVALS = 3
_STALE_SECONDS = 10.0
#: Programs that GPU memory is shown by; any other is "other", for a name can be anything.
_PROGRAMS = ("ollama", "llama", "vllm", "sglang", "python", "Xorg", "gnome-shell")
_OWN = "ai-lab"


class _Source(Protocol):
    statuses: dict[str, SourceStatus]

    def latest(self) -> Snapshot | None: ...


class HostCollector:
    """Shows host, container, GPU and sampler families.

    A snapshot older than three intervals and ten seconds is not shown any more: a dead sampler looks like one.

    Args:
        source: the sampler.
        interval_seconds: time between two snapshots.
        shows_host: False leaves out the machine and its container, which node_exporter may show already.
    """

    def __init__(self, source: _Source, *, interval_seconds: float, shows_host: bool = True) -> None:
        self._source = source
        self._stale_after_seconds = _STALE_INTERVALS * interval_seconds + _STALE_SECONDS
        self._shows_host = shows_host

    def __call__(self) -> Iterator[Reading]:
        """Yield every value that there is."""
        for name, labels, value in self._rows():
            yield PREFIX + name, labels, value

    def _rows(self) -> Iterator[Reading]:
        yield from _sampler(self._source.statuses)
        snapshot = self._source.latest()
        if snapshot is None or time.monotonic() - snapshot.monotonic_seconds > self._stale_after_seconds:
            return
        if self._shows_host:
            yield from _counters(snapshot)
            yield from _machine(snapshot.metrics)
        yield from _gpus(snapshot.metrics)


def _sampler(statuses: Mapping[str, SourceStatus]) -> Iterator[Reading]:
    for source, status in statuses.items():
        yield "sampler_last_success_timestamp_seconds", (source,), status.last_success_at
        yield "sampler_duration_seconds", (source,), status.duration_seconds
        for error_type, count in status.errors.items():
            yield "sampler_errors_total", (source, error_type), count


def _counters(snapshot: Snapshot) -> Iterator[Reading]:
    counters = snapshot.counters
    if snapshot.metrics.cpu.limit_cores is None:  # else those of the machine are not this container's business
        for (cpu, mode), seconds in counters.cpu_seconds.items():
            yield "host_cpu_seconds_total", (cpu, mode), seconds
    for name, by_device in (
        ("host_disk_read_bytes_total", counters.disk_read_bytes),
        ("host_disk_written_bytes_total", counters.disk_written_bytes),
        ("host_network_receive_bytes_total", counters.network_receive_bytes),
        ("host_network_transmit_bytes_total", counters.network_transmit_bytes),
    ):
        for device, count in by_device.items():
            yield name, (device,), count
    yield "container_cpu_seconds_total", (), counters.container_cpu_seconds
    yield "container_cpu_throttled_seconds_total", (), counters.container_throttled_seconds
    yield "container_oom_kills_total", (), counters.container_oom_kills


def _machine(metrics: SystemMetrics) -> Iterator[Reading]:
    cpu, memory = metrics.cpu, metrics.memory
    yield "host_cpus", (), cpu.count
    for minutes, load in zip((1, 5, 15), cpu.load_average or (), strict=False):
        yield f"host_load{minutes}", (), load
    yield "host_memory_total_bytes", (), memory.total_bytes
    yield "host_memory_available_bytes", (), memory.available_bytes
    yield "host_swap_total_bytes", (), memory.swap_total_bytes
    yield "host_swap_used_bytes", (), memory.swap_used_bytes
    for filesystem in metrics.filesystems:
        yield "host_filesystem_size_bytes", (filesystem.mountpoint,), filesystem.total_bytes
        yield "host_filesystem_available_bytes", (filesystem.mountpoint,), filesystem.free_bytes
    for sensor in metrics.temperatures:
        yield "host_temperature_celsius", (sensor.chip, sensor.sensor), sensor.celsius
    yield "container_cpu_limit_cores", (), cpu.limit_cores
    yield "container_memory_limit_bytes", (), memory.limit_bytes
    yield "container_memory_working_set_bytes", (), memory.working_set_bytes


def _gpus(metrics: SystemMetrics) -> Iterator[Reading]:
    if metrics.gpu_backend.status in {"ok", "no_gpu", "no_driver"}:
        yield "gpus", ("nvidia",), len(metrics.gpus)
    own = {metrics.process.pid, *(child.pid for child in metrics.children)}
    versions = (metrics.gpu_backend.driver_version or "", metrics.gpu_backend.cuda_version or "")
    for gpu in metrics.gpus:
        index = str(gpu.index)
        yield "gpu_info", (index, gpu.uuid or "", gpu.name or "", *versions), 1
        yield from _gpu(gpu, index)
        used: dict[str, int] = defaultdict(int)
        for process in gpu.processes or ():
            if process.memory_bytes is not None:
                used[_OWN if process.pid in own else _program(process.name)] += process.memory_bytes
        for program, size in used.items():
            yield "gpu_process_memory_used_bytes", (index, program), size


def _gpu(gpu: GpuMetrics, index: str) -> Iterator[Reading]:
    for name, value in (
        ("gpu_utilization_ratio", _ratio(gpu.utilization_percent)),
        ("gpu_memory_activity_ratio", _ratio(gpu.memory_activity_percent)),
        ("gpu_memory_total_bytes", gpu.memory_total_bytes),
        ("gpu_memory_used_bytes", gpu.memory_used_bytes),
        ("gpu_memory_reserved_bytes", gpu.memory_reserved_bytes),
        ("gpu_memory_free_bytes", gpu.memory_free_bytes),
        ("gpu_temperature_celsius", gpu.temperature_celsius),
        ("gpu_power_watts", gpu.power_watts),
        ("gpu_power_limit_watts", gpu.power_limit_watts),
        ("gpu_energy_joules_total", gpu.energy_joules),
        ("gpu_fan_speed_ratio", _ratio(gpu.fan_speed_percent)),
    ):
        yield name, (index,), value
    for domain, megahertz in gpu.clock_mhz.items():
        yield "gpu_clock_hertz", (index, domain), megahertz * _MEGA
    for reason in gpu.throttle_reasons or ():
        yield "gpu_throttle_active", (index, reason), 1
    for part in gpu.mig_instances:
        yield "gpu_mig_memory_total_bytes", (index, str(part.index)), part.memory_total_bytes
        yield "gpu_mig_memory_used_bytes", (index, str(part.index)), part.memory_used_bytes


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _program(name: str | None) -> str:
    file = (name or "").replace("\\", "/").rpartition("/")[2]
    return next((program for program in _PROGRAMS if file.startswith(program)), OTHER)
