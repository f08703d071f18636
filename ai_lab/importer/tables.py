"""What has been imported, so that a second run adds nothing."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table, Text

from ai_lab.database.orm import UtcDateTime, metadata

imported_sources = Table(
    "imported_sources",
    metadata,
    # SHA-256 over what the source says (kind, session and content), not over where it lies.
    Column("fingerprint", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("origin", Text, nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("rows_added", Integer, nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
)
