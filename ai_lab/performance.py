"""The import path of earlier programs: timing functions and looking at the machine, with or without a server.

``monitor_performance`` is for any program. ``performance_monitor`` speaks of this process alone; a lab's own figures
are at ``GET /performance/summary``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ai_lab.errors import InvalidRequest
from ai_lab.telemetry.operations.local import LocalTelemetry, local
from ai_lab.telemetry.operations.monitor import monitor_performance

__all__ = ["PerformanceMonitor", "monitor_performance", "performance_monitor"]

P = ParamSpec("P")
R = TypeVar("R")

_FLAT = (
    "cpu_usage_percent",
    "memory_usage_percent",
    "memory_usage_bytes",
    "gpu_utilization_percent",
    "gpu_memory_used_mb",
    "gpu_memory_total_mb",
    "gpu_temperature_c",
)


class PerformanceMonitor:
    """The earlier interface. Failures raise an ``ai_lab.errors.LabError`` with the remedy."""

    def __init__(self, telemetry: LocalTelemetry | None = None) -> None:
        self._telemetry = telemetry or local

    def time_operation(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function: the same as ``monitor_performance(name)``."""
        return monitor_performance(name)

    async def collect_system_metrics(self) -> dict[str, float | None]:
        """Look at the machine and return its figures; None is what it does not tell.

        It takes a quarter of a second, or some more where the GPU's driver has to wake up.
        """
        snapshot = await self._telemetry.sample()
        return snapshot.metrics.model_dump(include=set(_FLAT))

    async def record_metric(self, name: str, value: float, session_id: str | None = None) -> None:
        """Keep a figure of your own; ``get_performance_summary`` shows it under ``recorded``.

        Args:
            name: up to 500 different ones.
            value: a finite number.
            session_id: accepted from earlier programs; figures are kept by name alone.
        """
        self._telemetry.value(name, value)

    async def get_performance_summary(self, hours: float = 24) -> dict[str, Any]:
        """Return what this process did over the last hours, as ``GET /performance/summary`` does for a server."""
        return await self._telemetry.summary(hours)

    def get_prometheus_metrics(self) -> str:
        """Return the calls of monitored functions and the last collected figures in Prometheus' text format."""
        return self._telemetry.exposition()

    async def benchmark_llm_inference(
        self, model_name: str | None = None, prompt: str = "Explain how a computer works.", iterations: int = 10
    ) -> dict[str, Any]:
        """Measure a model and return the figures of ``POST /benchmark/llm``, ``avg_time`` and the others in seconds.

        Args:
            model_name: ``provider/model``, or the lab's default model.
            prompt: what is asked, with a number in front of it that differs each time.
            iterations: how often.

        Raises:
            BenchmarkFailed: not one iteration succeeded.
            InvalidRequest: it cannot be measured like that.
            ModelNotFound: there is no such model.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - as below

        from ai_lab.benchmark import Benchmark  # noqa: PLC0415 - a whole lab, only where something is measured
        from ai_lab.benchmarks.asking import in_our_words  # noqa: PLC0415 - as above
        from ai_lab.benchmarks.plan import Plan  # noqa: PLC0415 - as above
        from ai_lab.benchmarks.reports import earlier_shape  # noqa: PLC0415 - as above

        try:
            plan = Plan.of_earlier(model_name, prompt, iterations)
        except ValidationError as error:
            raise InvalidRequest(in_our_words(error)) from None
        result = await Benchmark(plan=plan).arun(progress=False)
        return earlier_shape(result.run, result.records)


#: The one object that earlier programs import; it does nothing before its first use.
performance_monitor = PerformanceMonitor()
