"""The machine during a run, looked at from a thread beside the load, on the clock of the records.

"The machine" is the processors that this process or the server under test may run on: others on other processors take
nothing from either. Under a limit of the container (control groups) 100 % is what the container may use. The kernel
counts for the whole machine inside a container too: neighbours outside are among the others, only without a name.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psutil

from ai_lab.benchmarks.observation.counters import CpuEnergy, thermal_throttle_events
from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.observation.processes import Processes
from ai_lab.benchmarks.observation.readings import (
    Reading,
    compare,
    cpu_times,
    frequency_mhz,
    part,
    swapped,
    usable_cores,
)
from ai_lab.benchmarks.records import Sample
from ai_lab.telemetry.machine.cgroup import ControlGroups
from ai_lab.telemetry.machine.gpu import GpuReader
from ai_lab.telemetry.machine.sampler import next_tick

THREAD_NAME = "ai-lab-side-sampler"
_LOOK_SECONDS = 1.0
_LOOK_SHARE = 0.01  # of one processor, at most, for looking at all processes
_MOST_SAMPLES = 100_000
_CLOSE_SECONDS = 2.0
_GPU_SECONDS = 0.2  # a driver that is slower is left out of that sample


class SideSampler:
    """Looks at the machine from ``start`` to ``close``, in one thread of its own.

    Shares of CPU are explained at ``readings.compare``. Kernels count in steps of 10 ms, so single samples are coarse
    and their means are not. ``other_top`` is of the last second or so, over all processors.

    Args:
        target_pids: returns the root processes of the server under test; called in the sampler's thread, every ten
            seconds and when one of them has ended. Their descendants belong to them, but never this process.
        targets_are_local: the server runs on this machine, so that without its processes nothing can be said of the
            others.
        loop_lag: of the measuring loop; its worst delay goes into each sample.
        interval_seconds: between two samples.
    """

    def __init__(
        self,
        target_pids: Callable[[], list[int]],
        *,
        targets_are_local: bool,
        loop_lag: LoopLag,
        interval_seconds: float = 0.25,
    ) -> None:
        self._targets_are_local = targets_are_local
        self._loop_lag = loop_lag
        self._interval_seconds = interval_seconds
        self._processes = Processes(target_pids)
        self._groups = ControlGroups()
        self._energy = CpuEnergy()
        self._gpus = GpuReader(timeout_seconds=_GPU_SECONDS)
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        # What a look brought, which lasts until the next one:
        self._look_at = self._looked_at = 0.0
        self._cores: set[int] = set()
        self._top: list[tuple[str, float]] = []
        self._frequency_mhz: float | None = None
        self._thermal_events: int | None = None

    def start(self) -> None:
        """Begin; the first sample is there one interval later."""
        self._thread.start()

    def close(self) -> None:
        """End, within about an interval; samples that were not taken stay."""
        self._stop.set()
        if self._thread.ident:
            self._thread.join(_CLOSE_SECONDS)

    def take(self) -> list[Sample]:
        """Return the samples since the last call, the oldest first."""
        taken = []
        while self._samples:
            taken.append(self._samples.popleft())
        return taken

    def _run(self) -> None:
        """Be the thread."""
        started = moment = time.perf_counter()
        earlier = self._read()
        self._loop_lag.take_worst_ms()
        while not self._stop.wait(next_tick(started, self._interval_seconds, moment) - moment):
            later = self._read()
            sample = compare(earlier, later, is_target_here=self._targets_are_local)
            sample.other_top = self._top
            sample.frequency_mhz = self._frequency_mhz
            sample.cpu_energy_joules = self._energy.read_joules()
            sample.gpus = self._read_gpus()
            sample.loop_lag_ms = self._loop_lag.take_worst_ms()
            self._samples.append(sample)
            earlier, moment = later, time.perf_counter()
        self._gpus.close()

    def _read(self) -> Reading:
        if time.perf_counter() >= self._look_at:
            self._look_at = time.perf_counter() + _LOOK_SECONDS
            part(self._processes.ask)
            part(self._look)
        memory = part(psutil.virtual_memory)
        container = part(
            lambda: self._groups.read(
                machine_cores=os.cpu_count() or 1, machine_memory_bytes=memory.total if memory else sys.maxsize
            )
        )
        throttled = container.cpu.throttled_periods if container and container.cpu else None
        events = [count for count in (throttled, self._thermal_events) if count is not None]
        return Reading(
            target=part(self._processes.target),
            own_seconds=time.process_time(),
            cpu=part(lambda: cpu_times(self._cores)),
            at_ns=time.perf_counter_ns(),
            container=container,
            memory=memory,
            swapped=part(swapped),
            throttle_events=sum(events) if events else None,
        )

    def _look(self) -> None:
        """Look at what costs more, seldom enough to be cheap however many processes there are."""
        began, cpu_began = time.perf_counter(), time.thread_time()
        seconds = self._processes.look()
        self._cores = usable_cores(self._processes.roots)
        capacity = (began - self._looked_at) * (len(self._cores) or os.cpu_count() or 1)
        self._top = [(name, round(100 * used / capacity, 1)) for name, used in self._processes.largest(seconds)]
        self._frequency_mhz = part(frequency_mhz)
        self._thermal_events = part(thermal_throttle_events)
        self._looked_at = began
        self._look_at = began + max(_LOOK_SECONDS, (time.thread_time() - cpu_began) / _LOOK_SHARE)

    def _read_gpus(self) -> list[dict[str, Any]]:
        gpus, _ = self._gpus.read(with_processes=False)
        return [
            {
                "index": gpu.index,
                "utilization_percent": gpu.utilization_percent,
                "memory_used_bytes": gpu.memory_used_bytes,
                "power_watts": gpu.power_watts,
                "energy_joules": gpu.energy_joules,
                "temperature_c": gpu.temperature_celsius,
                "clock_mhz": gpu.clock_mhz.get("sm", gpu.clock_mhz.get("graphics")),
                "throttle_reasons": gpu.throttle_reasons,
            }
            for gpu in gpus
        ]


async def watch_idle(sampler: SideSampler, seconds: float) -> list[Sample]:
    """Return the samples of the next ``seconds``; earlier ones that were not taken are dropped."""
    began_ns = time.perf_counter_ns()
    await asyncio.sleep(seconds)
    return [sample for sample in sampler.take() if sample.at_ns > began_ns]
