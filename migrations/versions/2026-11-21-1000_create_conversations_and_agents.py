"""Create conversations and messages with full-text search, agents and their states, and what the importer remembers.

Revision: 0001
After: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
MOMENT = sa.DateTime(timezone=True)

# The index holds finished messages only: an answer that grows would be indexed anew at every flush. An external-content
# index wants the old text back when a row leaves it, hence the pairs.
SQLITE_SEARCH = (
    """
    CREATE VIRTUAL TABLE message_search USING fts5(
        content, content='messages', content_rowid='number', tokenize='unicode61 remove_diacritics 2'
    )
    """,
    """
    CREATE TRIGGER message_search_insert AFTER INSERT ON messages WHEN new.status <> 'streaming' BEGIN
        INSERT INTO message_search(rowid, content) VALUES (new.number, new.content);
    END
    """,
    """
    CREATE TRIGGER message_search_finish AFTER UPDATE OF content, status ON messages
    WHEN old.status = 'streaming' AND new.status <> 'streaming' BEGIN
        INSERT INTO message_search(rowid, content) VALUES (new.number, new.content);
    END
    """,
    """
    CREATE TRIGGER message_search_update AFTER UPDATE OF content, status ON messages
    WHEN old.status <> 'streaming' BEGIN
        INSERT INTO message_search(message_search, rowid, content) VALUES ('delete', old.number, old.content);
        INSERT INTO message_search(rowid, content) VALUES (new.number, new.content);
    END
    """,
    """
    CREATE TRIGGER message_search_delete AFTER DELETE ON messages WHEN old.status <> 'streaming' BEGIN
        INSERT INTO message_search(message_search, rowid, content) VALUES ('delete', old.number, old.content);
    END
    """,
)

# A tsvector holds at most 1 MB; the first 100,000 characters of a message always fit.
POSTGRES_SEARCH = (
    """
    ALTER TABLE messages ADD COLUMN search tsvector
        GENERATED ALWAYS AS (to_tsvector('simple', left(content, 100000))) STORED
    """,
    "CREATE INDEX ix_messages_search ON messages USING gin (search)",
)


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_agents")),
    )
    op.create_table(
        "conversations",
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=True),
        sa.Column("archived", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("local_only", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("last_sequence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("metadata", JSON, nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_conversations")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_conversations_idempotency_key")),
    )
    op.create_index(
        "ix_conversations_updated_at_session_id", "conversations", ["updated_at", "session_id"], unique=False
    )

    op.create_table(
        "imported_sources",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("rows_added", sa.Integer(), nullable=False),
        sa.Column("imported_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_imported_sources")),
    )
    op.create_table(
        "server_instances",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", sa.Float(), nullable=False),
        sa.Column("renewed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_instances")),
    )
    op.create_table(
        "agent_states",
        sa.Column("state_id", sa.String(length=36), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=255), nullable=False),
        sa.Column("feedback", sa.Text(), nullable=False),
        sa.Column("thought_process", sa.Text(), nullable=False),
        sa.Column("data", JSON, nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["agents.session_id"], name=op.f("fk_agent_states_session_id_agents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("state_id", name=op.f("pk_agent_states")),
        sa.UniqueConstraint("session_id", "idempotency_key", name=op.f("uq_agent_states_session_id_idempotency_key")),
        sa.UniqueConstraint("session_id", "sequence", name=op.f("uq_agent_states_session_id_sequence")),
    )
    op.create_table(
        "messages",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("message_id", sa.String(length=36), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("thought_process", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=True),
        sa.Column("provider", sa.String(length=64), nullable=True),
        sa.Column("finish_reason", sa.String(length=32), nullable=True),
        sa.Column("usage", JSON, nullable=True),
        sa.Column("timings", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("extra", JSON, nullable=True),
        sa.Column("reply_to", sa.String(length=36), nullable=True),
        sa.Column("writer_id", sa.String(length=36), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "status IN ('complete', 'streaming', 'incomplete', 'interrupted', 'failed')",
            name=op.f("ck_messages_status"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["conversations.session_id"],
            name=op.f("fk_messages_session_id_conversations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_messages")),
        sa.UniqueConstraint("message_id", name=op.f("uq_messages_message_id")),
        sa.UniqueConstraint("session_id", "idempotency_key", name=op.f("uq_messages_session_id_idempotency_key")),
        sa.UniqueConstraint("session_id", "sequence", name=op.f("uq_messages_session_id_sequence")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_reply_to", "messages", ["reply_to"], unique=False)
    op.create_index(
        "ix_messages_unfinished",
        "messages",
        ["writer_id"],
        unique=False,
        sqlite_where=sa.text("status = 'streaming'"),
        postgresql_where=sa.text("status = 'streaming'"),
    )

    for statement in SQLITE_SEARCH if op.get_bind().dialect.name == "sqlite" else POSTGRES_SEARCH:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE message_search")
    for table in ("messages", "agent_states", "server_instances", "imported_sources", "conversations", "agents"):
        op.drop_table(table)
