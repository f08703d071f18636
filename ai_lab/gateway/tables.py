"""What the gateways of one database share: the state of breakers, and places in the queue of a service."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Float, Index, Integer, String, Table, Text

from ai_lab.database.orm import UtcDateTime, metadata

#: A row for each model of a service that failed lately; none where all is well. Times by the database's clock.
gateway_breakers = Table(
    "gateway_breakers",
    metadata,
    Column("provider", String(64), primary_key=True),
    Column("model", String(255), primary_key=True),
    Column("state", String(16), nullable=False),
    #: In a row.
    Column("failures", Integer, nullable=False),
    #: Code and text of the last one.
    Column("error_code", String(64)),
    Column("reason", Text),
    #: Unix seconds, by the database's clock: when it opened, and when one request may try again.
    Column("opened_at", Float(53)),
    Column("retry_at", Float(53)),
    #: The request that tries now, until when its answer is waited for.
    Column("probe", String(36)),
    Column("probe_until", Float(53)),
    Column("changed_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),
)

#: A row for each request that a service with a limit on concurrency is answering now.
gateway_slots = Table(
    "gateway_slots",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("service", String(64), nullable=False),
    #: Unix seconds, by the database's clock; a process that died leaves its rows until then.
    Column("expires_at", Float(53), nullable=False),
    Index("ix_gateway_slots_service", "service"),
)
