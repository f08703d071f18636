"""Whether figures can be trusted: VALID, SUSPECT or INVALID, with reasons that say what was seen and what to do.

A check yields findings; of one kind and arm the worst is kept, so that a sweep over many levels stays readable. Checks
are in ``request_checks`` (answers), ``timing_checks`` (times) and ``machine_checks`` (machine, servers, instrument).
"""

from __future__ import annotations

from collections.abc import Iterable

from ai_lab.benchmarks.analysis.evidence import Evidence
from ai_lab.benchmarks.analysis.machine_checks import MACHINE_CHECKS
from ai_lab.benchmarks.analysis.request_checks import REQUEST_CHECKS
from ai_lab.benchmarks.analysis.timing_checks import TIMING_CHECKS
from ai_lab.benchmarks.schemas import Grade, Reason

_ORDER = {"invalid": 0, "suspect": 1, "note": 2}


def grade(evidence: Evidence) -> tuple[Grade, list[Reason]]:
    """Return the grade of a run and its reasons, the gravest first."""
    reasons = _worst(
        reason for check in (*REQUEST_CHECKS, *TIMING_CHECKS, *MACHINE_CHECKS) for reason in check(evidence)
    )
    reasons.sort(key=lambda reason: _ORDER[reason.severity])
    severities = {reason.severity for reason in reasons}
    return "INVALID" if "invalid" in severities else "SUSPECT" if "suspect" in severities else "VALID", reasons


def _worst(reasons: Iterable[Reason]) -> list[Reason]:
    found: dict[tuple[str, str | None], list[Reason]] = {}
    for reason in reasons:
        found.setdefault((reason.code, reason.arm), []).append(reason)
    return [_standing_for(many) for many in found.values()]


def _standing_for(many: list[Reason]) -> Reason:
    worst = max(many, key=_badness)
    if len(many) == 1:
        return worst
    return worst.model_copy(update={"text": f"{worst.text} (The worst of {len(many)} levels with this finding.)"})


def _badness(reason: Reason) -> tuple[int, float]:
    value, limit = reason.value or 0.0, reason.limit
    return -_ORDER[reason.severity], abs(value - limit) if limit is not None else abs(value)
