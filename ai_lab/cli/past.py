"""What a server remembers of the last minutes, as the series of ``Trends``: a live view begins with a past."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from ai_lab.cli.trends import KEPT
from ai_lab.client import AsyncLabClient
from ai_lab.errors import LabError
from ai_lab.telemetry.history.schemas import HistorySeries, MetricHistory
from ai_lab.telemetry.schemas import SystemMetrics

#: A series -> the metrics whose sum over all devices it shows.
_METRICS = {
    "cpu": ("cpu_usage_percent",),
    "memory": ("memory_usage_percent",),
    "disk": ("disk_read_bytes_per_second", "disk_write_bytes_per_second"),
    "network": ("network_receive_bytes_per_second", "network_transmit_bytes_per_second"),
}
_GPU_METRIC = "gpu_utilization_percent"

Past = Mapping[str, Sequence[float | None]]


async def look_back(client: AsyncLabClient, latest: SystemMetrics) -> Past:
    """Return the values before this sample, oldest first; nothing where nothing is remembered."""
    sampled_at, step = latest.timestamp, max(1, round(latest.interval_seconds))
    start = sampled_at - timedelta(seconds=KEPT * step)
    names = [name for names in _METRICS.values() for name in names] + [_GPU_METRIC]
    found = await asyncio.gather(*(_history(client, name, start, sampled_at, step) for name in names))
    histories = {history.metric: history for history in found if history}
    past: dict[str, Sequence[float | None]] = {}
    for series, metrics in _METRICS.items():
        lines = [line for metric in metrics if metric in histories for line in histories[metric].series]
        past[series] = _values(lines, step, sampled_at)
    for line in histories[_GPU_METRIC].series if _GPU_METRIC in histories else []:
        past[f"gpu{line.labels.get('gpu')}"] = _values([line], step, sampled_at)
    return past


async def _history(
    client: AsyncLabClient, name: str, start: datetime, end: datetime, step: int
) -> MetricHistory | None:
    try:
        return await client.metrics_history(name, start=start, end=end, step=step)
    except LabError:  # not measured on this machine, or nothing remembered yet: then it has no past
        return None


def _values(lines: list[HistorySeries], step: int, until: datetime) -> list[float | None]:
    """Return the sum of these lines, one value per sample, and None for every step of a stretch without any."""
    if any(len(line.hosts) > 1 for line in lines):  # replicas on several machines: not the past of this one
        return []
    means: dict[int, float] = {}
    for line in lines:
        for start, mean, _, _ in line.points:
            means[start] = means.get(start, 0.0) + mean
    values: list[float | None] = []
    moments = sorted(moment for moment in means if moment + step <= until.timestamp())
    for moment, following in pairwise([*moments, int(until.timestamp())]):
        # Samples and steps are not in step: every now and then one step has two, and the next one none.
        missed = (following - moment) // step - 2
        values += [means[moment], *[None] * max(0, missed)]
    return values
