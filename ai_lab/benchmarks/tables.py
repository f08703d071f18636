"""Benchmark runs. What changes every second while one is measured is a small row; what is large lies beside it."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    text,
)

from ai_lab.database.orm import Json, UtcDateTime, metadata

STATUSES = ("queued", "running", "complete", "cancelled", "interrupted", "failed")


def _run_id() -> Column[str]:
    return Column("run_id", String(36), ForeignKey("benchmark_runs.id", ondelete="CASCADE"), primary_key=True)


benchmark_runs = Table(
    "benchmark_runs",
    metadata,
    Column("id", String(36), primary_key=True),  # sorts by age
    Column("status", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("title", String(500), nullable=False),
    Column("progress", Json, nullable=False),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("grade", String(16)),
    Column("error", Text),
    Column("error_code", String(64)),
    Column("rerun_of", String(36)),  # may be deleted meanwhile
    Column("resumed", Integer, nullable=False, server_default=text("0")),
    # The server process that measures it or has it in its queue, and the machine where it was measured so far.
    Column("instance_id", String(36), nullable=False),
    Column("host", String(255), nullable=False),
    Column("target_keys", Json, nullable=False),
    Column("keyed_arms", Json, nullable=False),  # names of the arms that had a key, which is stored nowhere
    Column("identity", String(64), nullable=False),  # equal where the same was asked of the same targets
    Column("idempotency_key", String(255), unique=True),
    Column("request_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    CheckConstraint(f"status IN {STATUSES}", name="status"),
    Index("ix_benchmark_runs_status", "status"),
    Index("ix_benchmark_runs_identity", "identity"),
)

#: Compressed JSON by kind: plan, state (what the measuring process needs to go on), report.
benchmark_documents = Table(
    "benchmark_documents",
    metadata,
    _run_id(),
    Column("kind", String(16), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

benchmark_blocks = Table(
    "benchmark_blocks",
    metadata,
    _run_id(),
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

benchmark_requests = Table(
    "benchmark_requests",
    metadata,
    _run_id(),
    Column("sequence", Integer, primary_key=True, autoincrement=False),  # in the order in which they ended
    Column("request_index", Integer, nullable=False),
    Column("block", Integer, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("data", LargeBinary, nullable=False),
)

benchmark_samples = Table(
    "benchmark_samples",
    metadata,
    _run_id(),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("data", LargeBinary, nullable=False),  # some seconds of samples
)

#: What is being measured by whom: a target is here once, whichever process asks.
benchmark_leases = Table(
    "benchmark_leases",
    metadata,
    Column("target_key", String(500), primary_key=True),
    Column("run_id", String(36), ForeignKey("benchmark_runs.id", ondelete="CASCADE"), nullable=False),
    Index("ix_benchmark_leases_run_id", "run_id"),
)
