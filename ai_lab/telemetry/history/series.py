"""Which figures of a sample are remembered, under which names. Names carry the unit; single processors are left out.

The first three names are those of earlier clients. What a machine cannot measure has no value here, never a 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ai_lab.telemetry.schemas import GpuMetrics, SystemMetrics

#: The unit of every metric, which is also the list of those that the sampler remembers.
UNITS: dict[str, str] = {
    "cpu_usage_percent": "percent",
    "memory_usage_percent": "percent",
    "memory_usage_bytes": "bytes",
    "memory_available_bytes": "bytes",
    "cpu_user_percent": "percent",
    "cpu_system_percent": "percent",
    "cpu_iowait_percent": "percent",
    "cpu_steal_percent": "percent",
    "load_average_1m": "processes",
    "swap_used_bytes": "bytes",
    "process_cpu_percent": "percent",  # of one core, as the next but one
    "process_memory_bytes": "bytes",
    "children_cpu_percent": "percent",
    "children_memory_bytes": "bytes",
    "gpu_utilization_percent": "percent",
    "gpu_memory_used_bytes": "bytes",
    "gpu_temperature_celsius": "celsius",
    "gpu_power_watts": "watts",
    "filesystem_free_bytes": "bytes",
    "network_receive_bytes_per_second": "bytes_per_second",
    "network_transmit_bytes_per_second": "bytes_per_second",
    "disk_read_bytes_per_second": "bytes_per_second",
    "disk_write_bytes_per_second": "bytes_per_second",
    "temperature_celsius": "celsius",
}
_MOST_SENSORS = 8  # some machines have fifty that all say the same
_UNIT_ENDINGS = (("_percent", "percent"), ("_bytes", "bytes"), ("_mb", "mebibytes"), ("_c", "celsius"))


class Series(NamedTuple):
    """One line of a chart: a metric and the labels that tell it from others, sorted by name."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def labels_text(self) -> str:
        """Return the labels as they are stored: equal labels are equal texts."""
        return json.dumps(dict(self.labels), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def series(name: str, labels: Mapping[str, str] | None = None) -> Series:
    """Return a series with its labels in order."""
    return Series(name, tuple(sorted((labels or {}).items())))


def unit_of(name: str) -> str:
    """Return the unit of a metric, of an imported one by the ending of its name; empty where nothing says it."""
    return UNITS.get(name) or next((unit for ending, unit in _UNIT_ENDINGS if name.endswith(ending)), "")


def values_of(metrics: SystemMetrics) -> dict[Series, float]:
    """Return what is remembered of a sample, the most important first."""
    return {series(name, labels): float(value) for name, labels, value in _figures(metrics) if value is not None}


_Figure = tuple[str, dict[str, str], float | None]


def _figures(metrics: SystemMetrics) -> Iterator[_Figure]:
    cpu, memory, process, children = metrics.cpu, metrics.memory, metrics.process, metrics.children
    child_shares = [child.cpu_percent for child in children if child.cpu_percent is not None]
    yield from (
        (name, {}, value)
        for name, value in (
            ("cpu_usage_percent", metrics.cpu_usage_percent),
            ("memory_usage_percent", metrics.memory_usage_percent),
            ("memory_usage_bytes", metrics.memory_usage_bytes),
            ("memory_available_bytes", memory.available_bytes),
            ("cpu_user_percent", cpu.user_percent),
            ("cpu_system_percent", cpu.system_percent),
            ("cpu_iowait_percent", cpu.iowait_percent),
            ("cpu_steal_percent", cpu.steal_percent),
            ("load_average_1m", cpu.load_average[0] if cpu.load_average else None),
            ("swap_used_bytes", memory.swap_used_bytes),
            ("process_cpu_percent", process.cpu_percent),
            ("process_memory_bytes", process.rss_bytes),
            ("children_cpu_percent", sum(child_shares) if child_shares or not children else None),
            ("children_memory_bytes", sum(child.rss_bytes for child in children)),
        )
    )
    for gpu in metrics.gpus:
        yield from _of_gpu(gpu)
    for filesystem in metrics.filesystems:
        yield "filesystem_free_bytes", {"mountpoint": filesystem.mountpoint}, filesystem.free_bytes
    for network in metrics.network:
        labels = {"interface": network.interface}
        yield "network_receive_bytes_per_second", labels, network.receive_bytes_per_second
        yield "network_transmit_bytes_per_second", labels, network.transmit_bytes_per_second
    for disk in metrics.disks:
        labels = {"device": disk.device}
        yield "disk_read_bytes_per_second", labels, disk.read_bytes_per_second
        yield "disk_write_bytes_per_second", labels, disk.write_bytes_per_second
    for sensor in metrics.temperatures[:_MOST_SENSORS]:
        yield "temperature_celsius", {"chip": sensor.chip, "sensor": sensor.sensor}, sensor.celsius


def _of_gpu(gpu: GpuMetrics) -> Iterator[_Figure]:
    labels = {"gpu": str(gpu.index)}
    yield "gpu_utilization_percent", labels, gpu.utilization_percent
    yield "gpu_memory_used_bytes", labels, gpu.memory_used_bytes
    yield "gpu_temperature_celsius", labels, gpu.temperature_celsius
    yield "gpu_power_watts", labels, gpu.power_watts
