"""What each attempt at a model cost, the same by day, and budgets. Money is in nano-dollars (1e-9 USD)."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Float, Index, Integer, String, Table

from ai_lab.database.orm import Json, UtcDateTime, metadata

#: A row for each attempt that reached a model. Null means unknown, never nothing.
model_charges = Table(
    "model_charges",
    metadata,
    Column("id", String(36), primary_key=True),
    #: The call (and trace) that it was an attempt of.
    Column("call_id", String(36), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("source", String(16), nullable=False),
    Column("service", String(64), nullable=False),
    Column("model", String(255), nullable=False),
    Column("alias", String(255)),
    Column("session_id", String(255)),
    Column("is_local", Boolean, nullable=False),
    Column("outcome", String(16), nullable=False),
    #: Input tokens, cached ones included; output tokens, reasoning included.
    Column("prompt_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("cache_write_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("reasoning_tokens", Integer),
    #: US dollars per million tokens by kind, and where and when they come from; null where the service told the cost.
    Column("price", Json),
    Column("price_source", String(64)),
    Column("price_version", String(64)),
    Column("cost_nanousd", BigInteger),
    #: What an answer that was cut may cost, by the text that came; counts for budgets alone.
    Column("estimated_nanousd", BigInteger),
    Column("total_ms", Float(53), nullable=False),
    Column("energy_joules", Float(53)),
    Column("electricity_nanousd", BigInteger),
    Index("ix_model_charges_call_id", "call_id"),
    Index("ix_model_charges_at", "at"),
)

#: Sums of ``model_charges`` by day (UTC), written in the same transaction.
cost_days = Table(
    "cost_days",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("service", String(64), primary_key=True),
    Column("model", String(255), primary_key=True),
    #: Empty where none was named.
    Column("alias", String(255), primary_key=True),
    Column("source", String(16), primary_key=True),
    Column("attempts", Integer, nullable=False),
    #: Attempts whose cost, or electricity, is not known and not in the sums.
    Column("unknown_costs", Integer, nullable=False),
    Column("unknown_electricity", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("estimated_nanousd", BigInteger, nullable=False),
    Column("energy_joules", Float(53), nullable=False),
    Column("electricity_nanousd", BigInteger, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("period", String(8), nullable=False),
    #: Null: all services, all models.
    Column("service", String(64)),
    Column("model", String(255)),
    Column("soft_nanousd", BigInteger),
    Column("hard_nanousd", BigInteger),
    #: The period that was warned of already: ``2026-11-21`` or ``2026-11``.
    Column("warned", String(10)),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("period IN ('day', 'month')", name="period"),
)
