"""What the samples say of the machine: means and extremes, and the worst moment. None is "unavailable"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.records import Sample

Floats = NDArray[np.float64]
_NAN = float("nan")
_LONGEST_STEP_SECONDS = 10.0  # between two samples; after more the sampler was off or the machine asleep
_FEWEST_IN_WINDOW = 4
_TOP_NAMES = 3
_PERCENTS = ("cpu_percent", "client_cpu_percent", "target_cpu_percent", "other_cpu_percent", "steal_percent")
_SUMS = ("swap_in_bytes", "swap_out_bytes", "cpu_throttle_events")
_GPU_MEANS = ("utilization_percent", "power_watts", "clock_mhz")


@dataclass(frozen=True, slots=True)
class Load:
    """A figure over the busy time: its mean, and the mean of its worst window."""

    mean: float
    worst: float
    worst_names: tuple[str, ...] = ()  # the largest other processes in that window


def column(samples: Iterable[Sample], field: str) -> Floats:
    """Return one field of all samples, NaN where it is unavailable."""
    return np.array([number_of(getattr(sample, field)) for sample in samples], dtype=np.float64)


def number_of(value: float | None) -> float:
    """Return the value, NaN for one that is unavailable."""
    return _NAN if value is None else float(value)


def total_of(samples: Sequence[Sample], field: str) -> float | None:
    """Return the sum of a field that counts since the sample before; None where no sample has it."""
    values = column(samples, field)
    return None if np.isnan(values).all() else float(np.nansum(values))


def load_of(samples: Sequence[Sample], field: str, *, window_seconds: float) -> Load | None:
    """Return mean and worst window of a percentage; None where no sample has it.

    A window is the shortest run of samples that covers ``window_seconds`` and has at least 4; where all samples
    together are less, they are the window.
    """
    known = [sample for sample in samples if getattr(sample, field) is not None]
    if not known:
        return None
    values = column(known, field)
    worst, first, last = float(values.mean()), 0, len(known)
    start = 0
    for end in range(1, len(known) + 1):
        step = (known[end - 1].at_ns - known[end - 2].at_ns) / 1e9 if end > 1 else 0.0
        if not 0 <= step <= _LONGEST_STEP_SECONDS:
            start = end - 1  # another clock or a long pause: windows do not reach across
        while end - start > _FEWEST_IN_WINDOW and _covered(known, start + 1, end) >= window_seconds:
            start += 1
        if end - start >= _FEWEST_IN_WINDOW and _covered(known, start, end) >= window_seconds:
            mean = float(values[start:end].mean())
            if mean > worst:
                worst, first, last = mean, start, end
    return Load(float(values.mean()), worst, _top_names(known[first:last]))


def _covered(samples: Sequence[Sample], start: int, end: int) -> float:
    # The first sample covers as much time before it as the second does; a lone one covers none.
    if end - start < 2:  # noqa: PLR2004 - two samples make a step
        return 0.0
    span = samples[end - 1].at_ns - samples[start].at_ns
    return (span + samples[start + 1].at_ns - samples[start].at_ns) / 1e9


def _top_names(samples: Sequence[Sample]) -> tuple[str, ...]:
    shares: dict[str, float] = {}
    for sample in samples:
        for name, percent in sample.other_top:
            shares[name] = shares.get(name, 0.0) + percent
    return tuple(sorted(shares, key=lambda name: -shares[name])[:_TOP_NAMES])


def figures_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return means, extremes and sums of some samples as JSON values, without what is unavailable."""
    figures: dict[str, Any] = {"samples": len(samples)}
    for field in _PERCENTS:
        _put(figures, field, column(samples, field), mean=np.mean, max=np.max)
    _put(figures, "frequency_mhz", column(samples, "frequency_mhz"), mean=np.mean, min=np.min)
    for field in ("memory_used_bytes", "target_rss_bytes", "loop_lag_ms"):
        _put(figures, field, column(samples, field), max=np.max)
    for field in _SUMS:
        if (total := total_of(samples, field)) is not None:
            figures[field] = total
    if names := _top_names(samples):
        figures["other_top"] = list(names)
    if gpus := _gpus_of(samples):
        figures["gpus"] = gpus
    return figures


def _put(figures: dict[str, Any], name: str, values: Floats, **reductions: Callable[[Floats], Any]) -> None:
    known = values[~np.isnan(values)]
    if known.size:
        figures[name] = {how: float(reduce(known)) for how, reduce in reductions.items()}


def _gpus_of(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    by_index: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        for gpu in sample.gpus:
            by_index.setdefault(int(gpu.get("index") or 0), []).append(gpu)
    result = []
    for index, readings in sorted(by_index.items()):
        figures: dict[str, Any] = {"index": index}
        for field in _GPU_MEANS:
            _put(figures, field, _gpu_column(readings, field), mean=np.mean, min=np.min, max=np.max)
        for field in ("temperature_c", "memory_used_bytes"):
            _put(figures, field, _gpu_column(readings, field), max=np.max)
        figures["throttle_reasons"] = sorted({one for gpu in readings for one in gpu.get("throttle_reasons") or ()})
        result.append(figures)
    return result


def _gpu_column(readings: Iterable[dict[str, Any]], field: str) -> Floats:
    return np.array([number_of(reading.get(field)) for reading in readings], dtype=np.float64)


def machine_of(data: RunData) -> dict[str, Any]:
    """Return the figures of the idle machine before, the busy one and the idle one after, as far as looked at."""
    parts = {"idle_before": data.idle_before, "busy": data.samples, "idle_after": data.idle_after}
    return {name: figures_of(samples) for name, samples in parts.items() if samples}
