"""How each answer came about, as one row; the tree of its attempts is JSON."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text

from ai_lab.database.orm import Json, UtcDateTime, metadata

traces = Table(
    "traces",
    metadata,
    Column("id", String(36), primary_key=True),
    #: W3C trace context: of the caller where it sent one.
    Column("trace_id", String(32), nullable=False),
    Column("parent_span_id", String(16)),
    Column("request_id", String(128)),
    Column("at", UtcDateTime, nullable=False),
    Column("source", String(16), nullable=False),
    Column("session_id", String(255)),
    Column("message_id", String(36)),
    #: The model as it was asked for, and the one that answered.
    Column("asked", String(512)),
    Column("provider", String(64)),
    Column("model", String(255)),
    Column("status", String(16), nullable=False),
    Column("error_code", String(64)),
    Column("cache", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_token_ms", Float(53)),
    Column("total_ms", Float(53), nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_nanousd", BigInteger),
    Column("tree", Json, nullable=False),
    #: Only where AI_LAB_TRACE_PROMPTS says so.
    Column("prompt", Json),
    Column("answer", Text),
    Index("ix_traces_at", "at"),
    Index("ix_traces_session_id", "session_id"),
    Index("ix_traces_trace_id", "trace_id"),
)
