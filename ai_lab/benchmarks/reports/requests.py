"""What one record says in milliseconds, for tables and charts. The figures of a run are computed elsewhere."""

from __future__ import annotations

import itertools
from typing import Any

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Run

_MS = 1e-6  # milliseconds per nanosecond

#: A whole answer came, whatever its length.
WHOLE: frozenset[str] = frozenset({"ok", "short"})


def between_ms(start_ns: int | None, end_ns: int | None) -> float | None:
    """Return the milliseconds from one stamp to another; None where one is missing."""
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) * _MS


def tpot_ms(record: Record) -> float | None:
    """Return the time per output token: (last - first) / (tokens - tokens of the first read); None without one."""
    whole, left = between_ms(record.first_token_ns, record.last_token_ns), record.later_tokens()
    return whole / left if whole and whole > 0 and left > 0 else None


def request_row(record: Record, run: Run) -> dict[str, Any]:
    """Return one request as one flat row: names, figures in milliseconds, counts and what went wrong."""
    names = run.plan.arm_names()
    stamps = record.chunk_ns
    origin = record.intended_ns if record.intended_ns is not None else record.sent_ns
    return {
        "index": record.index,
        "block": record.block,
        "arm": names[record.arm] if record.arm < len(names) else str(record.arm),
        "level": level_values(run).get(record.level),
        "phase": record.phase,
        "status": record.status,
        "ttft_ms": between_ms(record.sent_ns, record.first_token_ns),
        "ttft_sched_ms": between_ms(origin, record.first_token_ns),
        "ttfat_ms": between_ms(record.sent_ns, record.first_answer_ns),
        "e2e_ms": between_ms(record.sent_ns, record.last_token_ns),
        "e2e_sched_ms": between_ms(origin, record.last_token_ns),
        "tpot_ms": tpot_ms(record),
        "gap_max_ms": max(((b - a) * _MS for a, b in itertools.pairwise(stamps)), default=None),
        "chunks": len(stamps),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "token_source": record.token_source,
        "server_load_ms": record.server_ms.get("load_ms"),
        "server_prompt_ms": record.server_ms.get("prompt_ms"),
        "server_decode_ms": record.server_ms.get("decode_ms"),
        "connection_reused": record.connection_reused,
        "intended_ns": record.intended_ns,
        "sent_ns": record.sent_ns,
        "first_token_ns": record.first_token_ns,
        "last_token_ns": record.last_token_ns,
        "end_ns": record.end_ns,
        "finish_reason": record.finish_reason,
        "http_status": record.http_status,
        "error_code": record.error_code,
        "error": record.error,
        "output_characters": record.output_characters,
        "notes": "; ".join(record.notes),
    }


def level_values(run: Run) -> dict[int, float]:
    """Return the concurrency or rate of every level; a search makes up its levels as it goes."""
    levels = dict(enumerate(run.plan.levels()))
    if run.report is not None:
        levels |= {cell.level_index: cell.level for cell in run.report.cells}
    return levels
