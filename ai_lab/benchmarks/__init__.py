"""Owns benchmarks of models: load, records, statistics, comparison, reports. Does not go through the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_lab.benchmarks.plan import Arm, GoodputSearch, Iterations, OpenLoop, Plan, Prompts, Slo
from ai_lab.benchmarks.schemas import Run

if TYPE_CHECKING:
    from ai_lab.benchmarks.service import Benchmarks

__all__ = ["Arm", "Benchmarks", "GoodputSearch", "Iterations", "OpenLoop", "Plan", "Prompts", "Run", "Slo"]


def __getattr__(name: str) -> Any:
    """Load the service when it is asked for: the process that measures, and clients, have no use for a database."""
    if name == "Benchmarks":
        from ai_lab.benchmarks.service import Benchmarks  # noqa: PLC0415 - see above

        return Benchmarks
    raise AttributeError(f"module 'ai_lab.benchmarks' has no attribute {name!r}")
