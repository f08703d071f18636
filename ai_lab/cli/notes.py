"""What both screens say beside the figures of a device or a process."""

from __future__ import annotations

from ai_lab.cli import figures
from ai_lab.cli.figures import Signs
from ai_lab.telemetry.schemas import GpuMetrics, ProcessMetrics, SystemMetrics


def gpu_note(gpu: GpuMetrics, signs: Signs) -> str:
    """Return memory, temperature and power of a GPU, as far as it tells."""
    parts = []
    if gpu.memory_used_bytes is not None:
        parts.append(figures.part_of(gpu.memory_used_bytes, gpu.memory_total_bytes))
    if gpu.temperature_celsius is not None:
        parts.append(f"{gpu.temperature_celsius:.0f} {signs.degree}C")
    if gpu.power_watts is not None:
        parts.append(f"{gpu.power_watts:.0f} W")
    return ", ".join(parts)


def no_gpu(metrics: SystemMetrics) -> str:
    """Return why there are no figures of a GPU."""
    reasons = {"no_driver": "none (no NVIDIA driver)", "no_gpu": "none", "disabled": "not read (switched off)"}
    backend = metrics.gpu_backend
    return reasons.get(backend.status) or figures.plain(f"not readable: {backend.detail or backend.status}")


def program(process: ProcessMetrics) -> str:
    """Return what to call a child of the server."""
    return "engine" if process.name.startswith("engine") else figures.plain(process.name)


def process_note(process: ProcessMetrics) -> str:
    """Return what a process uses; percent are of one core, so that two busy cores are 200."""
    return f"{figures.percent(process.cpu_percent)} of a core, {figures.size(process.rss_bytes)}"
