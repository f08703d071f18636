"""Windows of rate limits that several servers on one database share."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, String, Table

from ai_lab.database.orm import metadata

rate_limit_windows = Table(
    "rate_limit_windows",
    metadata,
    #: Limit, client, endpoint and number of the window; of clients and tokens only digests.
    Column("key", String(255), primary_key=True),
    Column("count", Integer, nullable=False),
    #: Unix seconds, by the database's clock.
    Column("expires_at", Float(53), nullable=False),
    Index("ix_rate_limit_windows_expires_at", "expires_at"),
)
