"""Stored answers, and how often they helped."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from ai_lab.database.orm import Json, UtcDateTime, metadata

cached_answers = Table(
    "cached_answers",
    metadata,
    #: SHA-256 of the whole request in canonical form, in hex.
    Column("key", String(64), primary_key=True),
    #: SHA-256 of the request without its last user turn: only within it may questions be compared.
    Column("scope", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model", String(255), nullable=False),
    #: Of the conversation for which it was made: it goes with it.
    Column("session_id", String(255)),
    #: The last user turn and its vector (float32, normalised); null unless the semantic cache was on or in shadow mode.
    Column("question", Text),
    #: SHA-256 of the question's form (``gate.form``): only questions of the same form are compared by their vectors.
    Column("form", String(64)),
    Column("embedder", String(64)),
    Column("embedding", LargeBinary),
    #: ``schemas.StoredAnswer`` as JSON.
    Column("answer", Json, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("hits", Integer, nullable=False),
    Column("semantic_hits", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("last_hit_at", UtcDateTime),
    Index("ix_cached_answers_scope", "scope", "form"),
    Index("ix_cached_answers_session_id", "session_id"),
    #: With the size, so that the sum of all sizes is read from the index alone.
    Index("ix_cached_answers_expires_at", "expires_at", "size_bytes"),
)

#: Counts since the lab began, by name.
cache_counts = Table(
    "cache_counts",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
