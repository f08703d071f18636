"""Create what the gateway keeps: breakers and slots, stored answers, charges and budgets, traces.

Revision: 0005
After: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "gateway_breakers",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.Float(precision=53), nullable=True),
        sa.Column("retry_at", sa.Float(precision=53), nullable=True),
        sa.Column("probe", sa.String(length=36), nullable=True),
        sa.Column("probe_until", sa.Float(precision=53), nullable=True),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name=op.f("ck_gateway_breakers_state")),
        sa.PrimaryKeyConstraint("provider", "model", name=op.f("pk_gateway_breakers")),
    )
    op.create_table(
        "gateway_slots",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("service", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateway_slots")),
    )
    op.create_index("ix_gateway_slots_service", "gateway_slots", ["service"], unique=False)
    op.create_table(
        "cached_answers",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=True),
        sa.Column("question", sa.Text(), nullable=True),
        sa.Column("form", sa.String(length=64), nullable=True),
        sa.Column("embedder", sa.String(length=64), nullable=True),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        sa.Column("answer", JSON, nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("semantic_hits", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("last_hit_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_cached_answers")),
    )
    op.create_index("ix_cached_answers_scope", "cached_answers", ["scope", "form"], unique=False)
    op.create_index("ix_cached_answers_session_id", "cached_answers", ["session_id"], unique=False)
    op.create_index("ix_cached_answers_expires_at", "cached_answers", ["expires_at", "size_bytes"], unique=False)
    op.create_table(
        "cache_counts",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cache_counts")),
    )
    op.create_table(
        "model_charges",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("call_id", sa.String(length=36), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("service", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=True),
        sa.Column("session_id", sa.String(length=255), nullable=True),
        sa.Column("is_local", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("cache_write_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("price", JSON, nullable=True),
        sa.Column("price_source", sa.String(length=64), nullable=True),
        sa.Column("price_version", sa.String(length=64), nullable=True),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("estimated_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("total_ms", sa.Float(precision=53), nullable=False),
        sa.Column("energy_joules", sa.Float(precision=53), nullable=True),
        sa.Column("electricity_nanousd", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_charges")),
    )
    op.create_index("ix_model_charges_call_id", "model_charges", ["call_id"], unique=False)
    op.create_index("ix_model_charges_at", "model_charges", ["at"], unique=False)
    op.create_table(
        "cost_days",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("service", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("unknown_costs", sa.Integer(), nullable=False),
        sa.Column("unknown_electricity", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("estimated_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("energy_joules", sa.Float(precision=53), nullable=False),
        sa.Column("electricity_nanousd", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "service", "model", "alias", "source", name=op.f("pk_cost_days")),
    )
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("period", sa.String(length=8), nullable=False),
        sa.Column("service", sa.String(length=64), nullable=True),
        sa.Column("model", sa.String(length=255), nullable=True),
        sa.Column("soft_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("hard_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("warned", sa.String(length=10), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("period IN ('day', 'month')", name=op.f("ck_budgets_period")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    op.create_table(
        "traces",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("parent_span_id", sa.String(length=16), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=True),
        sa.Column("message_id", sa.String(length=36), nullable=True),
        sa.Column("asked", sa.String(length=512), nullable=True),
        sa.Column("provider", sa.String(length=64), nullable=True),
        sa.Column("model", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("cache", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_token_ms", sa.Float(precision=53), nullable=True),
        sa.Column("total_ms", sa.Float(precision=53), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("tree", JSON, nullable=False),
        sa.Column("prompt", JSON, nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_traces")),
    )
    op.create_index("ix_traces_at", "traces", ["at"], unique=False)
    op.create_index("ix_traces_session_id", "traces", ["session_id"], unique=False)
    op.create_index("ix_traces_trace_id", "traces", ["trace_id"], unique=False)


def downgrade() -> None:
    for table in (
        "traces",
        "budgets",
        "cost_days",
        "model_charges",
        "cache_counts",
        "cached_answers",
        "gateway_slots",
        "gateway_breakers",
    ):
        op.drop_table(table)
