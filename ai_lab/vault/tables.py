"""The vault's rows: its keyring (one row), the keys, the audit chain. No column ever holds a secret in the open."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, String, Table, Text

from ai_lab.database.orm import Json, RowNumber, UtcDateTime, metadata

#: One row, id 1. Every change of keys, keyring or audit locks it first (``SELECT … FOR UPDATE`` on Postgres).
vault_state = Table(
    "vault_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    #: Grows with each change; a process that has another number reads everything again.
    Column("generation", Integer, nullable=False),
    #: ``Keyring.wrapped`` under each root key that opens it: {root id: {"wrapped": …, "created_at": …}}. Two while a
    #: re-key goes on.
    Column("wrappings", Json, nullable=False),
    #: Salt of a passphrase, public.
    Column("salt", LargeBinary, nullable=False),
    #: ``schemas.Rotation`` as JSON; null where there never was one.
    Column("rotation", Json),
    Column("audit_sequence", RowNumber, nullable=False),
    Column("audit_mac", String(64), nullable=False),
    CheckConstraint("id = 1", name="single"),
)

#: Service and label are unique among keys that are not revoked; the migration says so, for here it loads a driver.
vault_keys = Table(
    "vault_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("service_name", String(64), nullable=False),
    Column("label", String(64), nullable=False),
    #: As the user gave it; ``base_origin`` (scheme://host:port) is what the secret is bound to.
    Column("base_url", Text),
    Column("base_origin", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    #: ``v1.<data key>.<fernet>``; null once it is revoked or must be entered again.
    Column("token", Text),
    Column("data_key", String(16)),
    Column("hint", String(32), nullable=False),
    Column("fingerprint", String(32), nullable=False),
    Column("details", Json, nullable=False),
    Column("last_test", Json),
    Column("created_at", UtcDateTime, nullable=False),
    Column("rotated_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    CheckConstraint(
        "state IN ('active', 'revoked', 'unreadable', 'tampered', 'needs_reentry')",
        name="state",
    ),
    Index("ix_vault_keys_data_key", "data_key"),
)

#: Only ever inserted into. ``mac`` = HMAC-SHA256(audit key, canonical JSON of the row and the mac before).
vault_audit = Table(
    "vault_audit",
    metadata,
    Column("sequence", RowNumber, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(32), nullable=False),
    Column("target", String(36)),
    Column("service_name", String(64)),
    Column("label", String(64)),
    Column("outcome", String(32), nullable=False),
    Column("request_id", String(128)),
    Column("count", Integer, nullable=False),
    Column("details", Json, nullable=False),
    Column("previous_mac", String(64), nullable=False),
    Column("mac", String(64), nullable=False),
)
