"""Requests that the lab's own rules kept from being sent: they stand among the attempts, so that traces show them."""

from __future__ import annotations

from ai_lab.clock import monotonic_ms
from ai_lab.errors import LabError
from ai_lab.gateway.ask import begin_attempt
from ai_lab.gateway.call import Call
from ai_lab.providers import ResolvedModel


def note_refusal(call: Call, model: ResolvedModel, error: LabError) -> None:
    """Write down in ``call`` that ``model`` was not asked, and why."""
    attempt = begin_attempt(call, model)
    attempt.outcome, attempt.error = "refused", error
    attempt.ended_ms = monotonic_ms() - call.started_ms
