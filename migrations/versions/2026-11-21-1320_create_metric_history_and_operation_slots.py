"""Create the history of measurements and the counts of operations.

Revision: 0002
After: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Rows leave at one end as fast as they come in at the other: without this a fifth of a table would be dead rows.
POSTGRES_TIDYING = (
    "ALTER TABLE metric_samples SET (autovacuum_vacuum_scale_factor = 0.03)",
    "ALTER TABLE metric_rollups SET (autovacuum_vacuum_scale_factor = 0.03)",
)


def upgrade() -> None:
    op.create_table(
        "metric_series",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric_series")),
        sa.UniqueConstraint("host", "name", "labels", name=op.f("uq_metric_series_host_name_labels")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "metric_samples",
        sa.Column("series_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", "at", name=op.f("pk_metric_samples")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "metric_rollups",
        sa.Column("tier", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("series_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("sum", sa.Float(), nullable=False),
        sa.Column("min", sa.Float(), nullable=False),
        sa.Column("max", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tier", "series_id", "start", name=op.f("pk_metric_rollups")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "operation_slots",
        sa.Column("tier", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("writer_id", sa.String(length=36), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tier", "start", "writer_id", name=op.f("pk_operation_slots")),
    )
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRES_TIDYING:
            op.execute(statement)


def downgrade() -> None:
    for table in ("operation_slots", "metric_rollups", "metric_samples", "metric_series"):
        op.drop_table(table)
