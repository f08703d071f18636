"""What the server has counted since its start, out of Prometheus' text format, and rates between two looks at it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ai_lab.cli.operations import WATCHING

_SAMPLE = re.compile(
    r"ai_lab_(http_requests_total|http_requests_in_progress|llm_tokens_total|llm_requests_in_progress)[{ ]"
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Counters:
    """Cumulative counts, and what is under way. ``requests`` leaves out those that only watch the lab."""

    monotonic_seconds: float
    requests: float = 0.0
    errors: float = 0.0
    tokens: float = 0.0
    requests_in_progress: float = 0.0
    answers_in_progress: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Per second between two looks; None where there is no earlier one, or the server was started anew since."""

    requests: float | None = None
    errors: float | None = None
    tokens: float | None = None


def read_counters(exposition: str, monotonic_seconds: float) -> Counters:
    """Return the counts in a text of Prometheus' format, which was read at this moment."""
    totals = dict.fromkeys(("requests", "errors", "tokens", "requests_in_progress", "answers_in_progress"), 0.0)
    for line in exposition.splitlines():
        if not (sample := _SAMPLE.match(line)):
            continue
        labels = dict(_LABEL.findall(line))
        value = float(line.rpartition(" ")[2])
        match sample[1]:
            case "http_requests_total" if not WATCHING.match(labels.get("route", "")):
                totals["requests"] += value
                totals["errors"] += value if labels.get("status", "").startswith("5") else 0
            case "llm_tokens_total" if labels.get("token_type") == "output":
                totals["tokens"] += value
            case "http_requests_in_progress":
                totals["requests_in_progress"] += value
            case "llm_requests_in_progress":
                totals["answers_in_progress"] += value
    # The request that asked for this text is one of those under way.
    totals["requests_in_progress"] = max(0.0, totals["requests_in_progress"] - 1)
    return Counters(monotonic_seconds, **totals)


def rates(before: Counters | None, after: Counters) -> Rates:
    """Return what was counted per second in between."""
    seconds = after.monotonic_seconds - before.monotonic_seconds if before else 0.0
    if before is None or seconds <= 0 or after.requests < before.requests or after.tokens < before.tokens:
        return Rates()
    return Rates(
        (after.requests - before.requests) / seconds,
        (after.errors - before.errors) / seconds,
        (after.tokens - before.tokens) / seconds,
    )
