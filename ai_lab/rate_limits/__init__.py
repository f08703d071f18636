"""Owns rate limits: windows of requests per client, in memory, in the database or on Redis. Knows no endpoint."""

from ai_lab.rate_limits.service import LimitName, RateLimits
from ai_lab.rate_limits.window import Window

__all__ = ["LimitName", "RateLimits", "Window"]
