"""Agent states: one counter per agent and an append-only history."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, String, Table, Text, UniqueConstraint

from ai_lab.database.orm import Json, UtcDateTime, metadata

agents = Table(
    "agents",
    metadata,
    Column("session_id", String(255), primary_key=True),
    Column("last_sequence", Integer, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

agent_states = Table(
    "agent_states",
    metadata,
    Column("state_id", String(36), primary_key=True),
    Column("session_id", String(255), ForeignKey("agents.session_id", ondelete="CASCADE"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("status", String(255), nullable=False),
    Column("feedback", Text, nullable=False),
    Column("thought_process", Text, nullable=False),
    Column("data", Json),
    Column("idempotency_key", String(255)),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("session_id", "sequence"),
    UniqueConstraint("session_id", "idempotency_key"),
)
