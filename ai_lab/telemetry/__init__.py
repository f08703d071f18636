"""Owns what the lab knows of itself: the machine, its operations, their history, health. Changes nothing it measures.

The names are resolved on first use: a notebook that only times functions loads none of the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_lab.telemetry.health import ComponentHealth, Health, HealthReport
    from ai_lab.telemetry.operations.service import Operations
    from ai_lab.telemetry.prometheus.instruments import Instruments, VaultReading
    from ai_lab.telemetry.schemas import SystemMetrics
    from ai_lab.telemetry.service import Telemetry

__all__ = [
    "ComponentHealth",
    "Health",
    "HealthReport",
    "Instruments",
    "Operations",
    "SystemMetrics",
    "Telemetry",
    "VaultReading",
]

_HOMES = {
    "ComponentHealth": "health",
    "Health": "health",
    "HealthReport": "health",
    "Instruments": "prometheus.instruments",
    "Operations": "operations.service",
    "SystemMetrics": "schemas",
    "Telemetry": "service",
    "VaultReading": "prometheus.instruments",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
