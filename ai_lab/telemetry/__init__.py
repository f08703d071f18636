"""Owns what the lab says about its own state: health. Measures nothing yet."""

from ai_lab.telemetry.health import ComponentHealth, Health, HealthReport

__all__ = ["ComponentHealth", "Health", "HealthReport"]
