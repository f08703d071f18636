"""Conversations and their messages. A message is a row that is written once; only an answer grows while it streams."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from ai_lab.database.orm import Json, RowNumber, UtcDateTime, metadata

STATUSES = ("complete", "streaming", "incomplete", "interrupted", "failed")

conversations = Table(
    "conversations",
    metadata,
    Column("session_id", String(255), primary_key=True),
    Column("title", String(500)),
    Column("archived", Boolean, nullable=False, server_default=false()),
    Column("local_only", Boolean, nullable=False, server_default=false()),
    Column("last_sequence", Integer, nullable=False, server_default=text("0")),
    Column("metadata", Json),
    Column("idempotency_key", String(255), unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_conversations_updated_at_session_id", "updated_at", "session_id"),
)

messages = Table(
    "messages",
    metadata,
    # The search index of SQLite needs a whole number that VACUUM keeps; people and programs use message_id.
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("message_id", String(36), nullable=False, unique=True),
    Column(
        "session_id",
        String(255),
        ForeignKey("conversations.session_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("sequence", Integer, nullable=False),
    Column("role", String(32), nullable=False),
    Column("content", Text, nullable=False),
    Column("thought_process", Text),
    Column("status", String(16), nullable=False),
    Column("model", String(255)),
    Column("provider", String(64)),
    Column("finish_reason", String(32)),
    Column("usage", Json),
    Column("timings", Json),
    Column("error", Json),
    Column("extra", Json),
    # Of an answer: the user message it replies to, and the server process that writes it.
    Column("reply_to", String(36)),
    Column("writer_id", String(36)),
    Column("idempotency_key", String(255)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("session_id", "sequence"),
    UniqueConstraint("session_id", "idempotency_key"),
    CheckConstraint(f"status IN {STATUSES}", name="status"),
    Index("ix_messages_reply_to", "reply_to"),
    # A partial index over unfinished answers stands in the migration alone: declaring it loads both dialects.
    sqlite_autoincrement=True,
)
