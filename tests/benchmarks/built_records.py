"""Records and runs built by hand, so that every figure made of them is known beforehand."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.plan import Iterations, Plan
from ai_lab.benchmarks.records import BlockDone, Record, Sample
from ai_lab.benchmarks.schemas import Estimate, Instrument

MS = 1_000_000
SECOND = 1_000_000_000
ORIGIN_NS = 7_000 * SECOND


def built(index: int = 0, **changes: Any) -> Record:
    """Return a whole answer: sent at ``start_ms``, first token after ``ttft_ms``, then one token every ``gap_ms``.

    Args:
        index: Of the request; without ``start_ms`` it begins at ``index`` seconds.
        changes: ttft_ms (100), gap_ms (10), tokens (11), start_ms, wait_ms (0, from the intended time to the sending);
            anything else is a field of the record.
    """
    ttft_ms, gap_ms = changes.pop("ttft_ms", 100), changes.pop("gap_ms", 10)
    tokens, wait_ms = changes.pop("tokens", 11), changes.pop("wait_ms", 0)
    intended = ORIGIN_NS + int(changes.pop("start_ms", index * 1000) * MS)
    sent = intended + int(wait_ms * MS)
    stamps = array("q", [sent + int((ttft_ms + number * gap_ms) * MS) for number in range(tokens)])
    values: dict[str, Any] = {
        "block": index // 10,
        "arm": 0,
        "level": 0,
        "phase": "measured",
        "prompt_sha256": f"{index:064x}",
        "intended_ns": intended,
        "dispatched_ns": sent,
        "sent_ns": sent,
        "first_token_ns": stamps[0] if tokens else None,
        "first_answer_ns": stamps[0] if tokens else None,
        "last_token_ns": stamps[-1] if tokens else None,
        "end_ns": stamps[-1] if tokens else sent,
        "chunk_ns": stamps,
        "status": "ok",
        "prompt_tokens": 100,
        "completion_tokens": tokens,
        "token_source": "server",
        "cached_tokens": 0,
        "server_ms": {"load_ms": 2.0, "prompt_ms": ttft_ms * 0.9, "decode_ms": float(gap_ms * (tokens - 1))},
        "output_sha256": "a" * 64,
    }
    return Record(index=index, **(values | changes))


def failed(index: int = 0, **changes: Any) -> Record:
    """Return a request that the server refused 5 ms after it was sent."""
    record = built(index, tokens=0)
    nothing: dict[str, Any] = {
        "status": "error",
        "error": "The server answered with status 500.",
        "completion_tokens": None,
        "token_source": None,
        "cached_tokens": None,
        "server_ms": {},
        "output_sha256": None,
        "end_ns": (record.sent_ns or 0) + 5 * MS,
    }
    return built(index, tokens=0, **(nothing | changes))


def blocks_of(records: Sequence[Record]) -> list[BlockDone]:
    """Return complete blocks for all measured records, each with 1 ms of the client's CPU time."""
    groups: dict[tuple[int, int, int], list[Record]] = {}
    for record in records:
        if record.phase == "measured":
            groups.setdefault((record.block, record.arm, record.level), []).append(record)
    return [
        BlockDone(
            block=block,
            arm=arm,
            level=level,
            started_ns=min(record.intended_ns or 0 for record in members),
            ended_ns=max(record.end_ns or 0 for record in members),
            client_cpu_seconds=0.001,
            gc_pause_ms=0.0,
            loop_lag_p99_ms=0.2,
        )
        for (block, arm, level), members in sorted(groups.items())
    ]


def quiet_samples(count: int = 40, **changes: Any) -> list[Sample]:
    """Return looks at a quiet machine every 250 ms; ``changes`` apply to all of them."""
    values: dict[str, Any] = {
        "cpu_percent": 60.0,
        "client_cpu_percent": 2.0,
        "target_cpu_percent": 55.0,
        "other_cpu_percent": 3.0,
        "other_top": [("indexer", 2.0), ("clock", 1.0)],
        "steal_percent": 0.0,
        "swap_in_bytes": 0,
        "swap_out_bytes": 0,
        "cpu_throttle_events": 0,
    }
    return [Sample(at_ns=ORIGIN_NS + number * SECOND // 4, **(values | changes)) for number in range(count)]


def sound_instrument(**changes: Any) -> Instrument:
    """Return what a calibration finds on a good machine."""
    values: dict[str, Any] = {
        "seconds": 3.0,
        "chunks": 300,
        "chunk_rate": 100.0,
        "achieved_rate": 100.0,
        "ttft_error_ms": Estimate(value=0.2),
        "stamp_error_p99_ms": 0.5,
        "gap_error_ms": 0.1,
        "cpu_us_per_chunk": 60.0,
        "loop_lag_p99_ms": 0.3,
    }
    return Instrument(**(values | changes))


def built_run(records: Sequence[Record] | None = None, **changes: Any) -> RunData:
    """Return a sound run of 20 equal requests, one after the other, on a quiet machine.

    Args:
        records: Instead of those.
        changes: Fields of the run.
    """
    measured = [built(index) for index in range(20)] if records is None else list(records)
    described = {"version": "1.0", "digest": "sha256:1", "is_loaded": True, "size_bytes": 100, "size_vram_bytes": 0}
    values: dict[str, Any] = {
        "plan": Plan(load=Iterations(requests=20), output_tokens=11),
        "records": measured,
        "blocks": blocks_of(measured),
        "samples": quiet_samples(),
        "instrument": sound_instrument(),
        "expected_requests": sum(record.phase == "measured" for record in measured),
    }
    data = RunData(**(values | changes))
    if "provenance" not in changes:
        names = data.plan.arm_names()
        data.provenance = {"targets": {name: {"before": described, "after": dict(described)} for name in names}}
    return data
