"""What holds for every reading of GPUs, scripted or real."""

from __future__ import annotations

from ai_lab.telemetry.schemas import GpuBackend, GpuMetrics

VALUES = {
    "utilization_percent": (0, 100),
    "memory_activity_percent": (0, 100),
    "memory_total_bytes": (2**20, 2**50),
    "memory_used_bytes": (0, 2**50),
    "memory_reserved_bytes": (0, 2**50),
    "memory_free_bytes": (0, 2**50),
    "temperature_celsius": (-50, 150),
    "power_watts": (0, 5000),
    "power_limit_watts": (1, 5000),
    "energy_joules": (0, 1e13),
    "fan_speed_percent": (0, 200),
}


def expect_sound(gpus: list[GpuMetrics], backend: GpuBackend) -> None:
    assert backend.name == "nvml"
    assert backend.driver_version
    assert [gpu.index for gpu in gpus] == sorted({gpu.index for gpu in gpus})
    for gpu in gpus:
        expect_sound_values(gpu)
        expect_sound_parts(gpu)


def expect_sound_values(gpu: GpuMetrics) -> None:
    for field, (least, most) in VALUES.items():
        value = getattr(gpu, field)
        assert (value is None) == bool(gpu.unavailable.get(field)), (field, value, gpu.unavailable)
        assert value is None or least <= value <= most, (field, value)
    for field in ("processes", "throttle_reasons"):
        assert (getattr(gpu, field) is None) == bool(gpu.unavailable.get(field)), (field, gpu.unavailable)
    assert gpu.is_mig or not gpu.mig_instances


def expect_sound_parts(gpu: GpuMetrics) -> None:
    total = gpu.memory_total_bytes
    if total is not None:
        assert gpu.memory_used_bytes is not None
        assert gpu.memory_free_bytes is not None
        parts = gpu.memory_used_bytes + gpu.memory_free_bytes + (gpu.memory_reserved_bytes or 0)
        assert abs(parts - total) <= total / 1000
        assert all((each.memory_total_bytes or 0) <= total for each in gpu.mig_instances)
    assert gpu.clock_mhz.keys() <= {"graphics", "sm", "memory", "video"}
    assert all(0 <= megahertz <= 50_000 for megahertz in gpu.clock_mhz.values())
    pids = [process.pid for process in gpu.processes or ()]
    assert pids == sorted(set(pids))


def values_of(gpu: GpuMetrics) -> dict[str, object]:
    return gpu.model_dump(include=set(VALUES))
