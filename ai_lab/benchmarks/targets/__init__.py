"""Owns talking to a server under test: one file per wire format, stamps at the socket read."""

from ai_lab.benchmarks.targets.address import Address, target_key
from ai_lab.benchmarks.targets.opening import open_target
from ai_lab.benchmarks.targets.resolve import resolve
from ai_lab.benchmarks.targets.target import Question, Target

__all__ = ["Address", "Question", "Target", "open_target", "resolve", "target_key"]
