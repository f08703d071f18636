"""Owns the way to a model: retries, breakers, limits, fallbacks, cache, budgets, traces; a file for each policy."""

from ai_lab.gateway.call import Attempt, Call, Route, TraceParent
from ai_lab.gateway.service import Gateway

__all__ = ["Attempt", "Call", "Gateway", "Route", "TraceParent"]
