"""The power that a run took, by every meter there is. None is "unavailable"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.machine_figures import number_of
from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.records import Sample

Floats = NDArray[np.float64]
_NAN = float("nan")
_LEAST_COVERED_SHARE = 0.9  # of a cell's time by samples, or its energy stays unknown


@dataclass(frozen=True, slots=True)
class Power:
    """Mean watts of some time by every way there is, None where there is none."""

    gpu_counter: float | None  # NVML's energy counter
    gpu_integrated: float | None  # NVML's power readings over time
    cpu_counter: float | None  # RAPL

    @property
    def watts(self) -> float | None:
        """Return what is known of all parts together: the counter before the integrated power."""
        gpu = self.gpu_integrated if self.gpu_counter is None else self.gpu_counter
        parts = [part for part in (gpu, self.cpu_counter) if part is not None]
        return sum(parts) if parts else None

    @property
    def method(self) -> str:
        """Return what the watts are of, and by which way."""
        gpu = "GPU energy counter" if self.gpu_counter is not None else "GPU power integrated over time"
        has_gpu = self.gpu_counter is not None or self.gpu_integrated is not None
        return " + ".join([gpu] * has_gpu + ["CPU package (RAPL)"] * (self.cpu_counter is not None))

    @property
    def disagreement(self) -> float | None:
        """Return by which share the two ways for the GPU differ."""
        if not self.gpu_counter or self.gpu_integrated is None:
            return None
        return abs(self.gpu_integrated / self.gpu_counter - 1)


class PowerHistory:
    """The energy that the machine's meters counted during a run: all GPUs together, and the CPU."""

    def __init__(self, data: RunData) -> None:
        busy = sorted([*data.idle_before, *data.samples, *data.idle_after], key=lambda sample: sample.at_ns)
        self._at = np.array([sample.at_ns for sample in busy], dtype=np.float64)
        self._gpu_counter = _rising([_gpu_sum(sample, "energy_joules") for sample in busy])
        self._gpu_watts = np.array([_gpu_sum(sample, "power_watts") for sample in busy], dtype=np.float64)
        self._cpu_counter = _rising([number_of(sample.cpu_energy_joules) for sample in busy])
        self.idle = self._idle(data)

    def during(self, spans: Sequence[tuple[int, int]]) -> Power:
        """Return the mean power in some spans of the records' clock; None where samples do not cover 90 % of them."""
        if not self._at.size or not spans:
            return Power(None, None, None)
        first, last = self._at[0], self._at[-1]
        inside = [(max(start, first), min(end, last)) for start, end in spans if min(end, last) > max(start, first)]
        covered = sum(end - start for start, end in inside)
        if covered <= 0 or covered < _LEAST_COVERED_SHARE * sum(end - start for start, end in spans):
            return Power(None, None, None)
        return Power(
            self._rate(self._gpu_counter, inside, covered),
            self._rate(self._integrated(), inside, covered),
            self._rate(self._cpu_counter, inside, covered),
        )

    def _integrated(self) -> Floats:
        # Trapezoids: power is read at the samples and changes in between.
        known = ~np.isnan(self._gpu_watts)
        at, watts = self._at[known] / 1e9, self._gpu_watts[known]
        energy = np.full(self._at.size, _NAN)
        energy[known] = np.concatenate([[0.0], np.cumsum(np.diff(at) * (watts[1:] + watts[:-1]) / 2)])[: at.size]
        return energy

    def _rate(self, counter: Floats, spans: Sequence[tuple[float, float]], covered_ns: float) -> float | None:
        known = ~np.isnan(counter)
        if known.sum() < 2 or known.mean() < _LEAST_COVERED_SHARE:  # noqa: PLR2004 - two readings make a difference
            return None
        at, energy = self._at[known], counter[known]
        ends = np.interp([end for _, end in spans], at, energy)
        starts = np.interp([start for start, _ in spans], at, energy)
        return float((ends - starts).sum() / (covered_ns / 1e9))

    def _idle(self, data: RunData) -> Power:
        spans = [
            (samples[0].at_ns, samples[-1].at_ns)
            for samples in (data.idle_before, data.idle_after)
            if len(samples) > 1 and samples[-1].at_ns > samples[0].at_ns
        ]
        return self.during(spans)


def _gpu_sum(sample: Sample, field: str) -> float:
    # One GPU without a value makes the sum unknown: part of it would pass for all of it.
    values = [number_of(gpu.get(field)) for gpu in sample.gpus]
    return sum(values) if values else _NAN


def _rising(counter: Sequence[float]) -> Floats:
    # A counter that falls was set back, as by a reset of the driver: what it says then is worth nothing.
    values = np.array(counter, dtype=np.float64)
    return np.full(values.size, _NAN) if (np.diff(values[~np.isnan(values)]) < 0).any() else values
