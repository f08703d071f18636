"""Create benchmark runs and what they measure.

Revision: 0003
After: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
MOMENT = sa.DateTime(timezone=True)


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id"], ["benchmark_runs.id"], name=op.f(f"fk_{table}_run_id_benchmark_runs"), ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "benchmark_runs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("progress", JSON, nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("grade", sa.String(length=16), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("rerun_of", sa.String(length=36), nullable=True),
        sa.Column("resumed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("target_keys", JSON, nullable=False),
        sa.Column("keyed_arms", JSON, nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'complete', 'cancelled', 'interrupted', 'failed')",
            name=op.f("ck_benchmark_runs_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_benchmark_runs")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_benchmark_runs_idempotency_key")),
    )
    op.create_index("ix_benchmark_runs_status", "benchmark_runs", ["status"], unique=False)
    op.create_index("ix_benchmark_runs_identity", "benchmark_runs", ["identity"], unique=False)
    op.create_table(
        "benchmark_documents",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _of_run("benchmark_documents"),
        sa.PrimaryKeyConstraint("run_id", "kind", name=op.f("pk_benchmark_documents")),
    )
    op.create_table(
        "benchmark_blocks",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("block", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _of_run("benchmark_blocks"),
        sa.PrimaryKeyConstraint("run_id", "block", name=op.f("pk_benchmark_blocks")),
    )
    op.create_table(
        "benchmark_requests",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("request_index", sa.Integer(), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _of_run("benchmark_requests"),
        sa.PrimaryKeyConstraint("run_id", "sequence", name=op.f("pk_benchmark_requests")),
    )
    op.create_table(
        "benchmark_samples",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _of_run("benchmark_samples"),
        sa.PrimaryKeyConstraint("run_id", "sequence", name=op.f("pk_benchmark_samples")),
    )
    op.create_table(
        "benchmark_leases",
        sa.Column("target_key", sa.String(length=500), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        _of_run("benchmark_leases"),
        sa.PrimaryKeyConstraint("target_key", name=op.f("pk_benchmark_leases")),
    )
    op.create_index("ix_benchmark_leases_run_id", "benchmark_leases", ["run_id"], unique=False)


def downgrade() -> None:
    for table in ("leases", "samples", "requests", "blocks", "documents", "runs"):
        op.drop_table(f"benchmark_{table}")
