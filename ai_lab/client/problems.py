"""Answers that report a failure, as the errors that the library itself raises."""

from __future__ import annotations

import json
from typing import Any

from ai_lab.errors import LabError, MetricNotFound, ModelNotFound, ServiceNotFound, SourceDamaged


def error_of(status: int, body: bytes, retry_after: str | None = None) -> LabError:
    """Return the error that a body describes: problem details, OpenAI's shape, or neither."""
    problem = _problem(body)
    code = problem.get("code")
    kind = _by_code(LabError).get(code, LabError) if isinstance(code, str) else LabError
    detail = str(problem.get("detail") or problem.get("message") or f"The server answered with status {status}.")
    error = kind.__new__(kind, detail)
    wait_seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    LabError.__init__(error, detail, retry_after_seconds=wait_seconds, param=problem.get("param"))
    error.status, error.code = status, code if isinstance(code, str) else kind.code
    if isinstance(error, ModelNotFound | MetricNotFound | ServiceNotFound):
        error.near_matches = list(problem.get("near_matches") or [])
    if isinstance(error, SourceDamaged):
        error.reason, error.origin, error.position = detail, "", {}
    if problem.get("request_id"):
        error.add_note(f"The server's log names this request {problem['request_id']}.")
    return error


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(problem, dict) and isinstance(problem.get("error"), dict):
        problem = problem["error"]
    return problem if isinstance(problem, dict) else {}


def _by_code(kind: type[LabError]) -> dict[str, type[LabError]]:
    found = {kind.code: kind}
    for narrower in kind.__subclasses__():
        found = _by_code(narrower) | found
    return found
