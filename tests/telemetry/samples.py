"""Samples of a machine as they come from the sampler, with what a test wants to be special."""

from __future__ import annotations

import time
from dataclasses import replace

from ai_lab.clock import now
from ai_lab.telemetry.machine.rates import counters, derive
from ai_lab.telemetry.machine.sampler import Snapshot
from ai_lab.telemetry.schemas import GpuBackend, GpuMetrics, GpuStatus
from tests.telemetry.readings import GIB, core, reading


def snapshot_of(
    *,
    memory_percent: float = 25.0,
    age_seconds: float = 0.0,
    gpu_celsius: float | None = None,
    gpu_status: GpuStatus = "no_driver",
) -> Snapshot:
    """Return a snapshot of a machine with 8 GiB, taken ``age_seconds`` ago."""
    available = round(8 * GIB * (1 - memory_percent / 100))
    earlier, later = reading(), reading(5.0, memory_available_bytes=available, cpu_seconds=[core(user=1, idle=4)] * 2)
    gpus = [] if gpu_celsius is None else [GpuMetrics(index=0, name="GPU", temperature_celsius=gpu_celsius)]
    backend = GpuBackend(status=gpu_status if gpu_celsius is None else "ok")
    return Snapshot(
        taken_at=now(),
        monotonic_seconds=time.monotonic() - age_seconds,
        counters=counters(later, None),
        metrics=derive(earlier, replace(later), gpus, backend),
        is_continuous=True,
    )
