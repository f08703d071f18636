"""Owns the record of how each answer came about, and its export. Does not make answers."""

from ai_lab.traces.service import Traces
from ai_lab.traces.trace import HostLoad, Trace, TracedAttempt

__all__ = ["HostLoad", "Trace", "TracedAttempt", "Traces"]
