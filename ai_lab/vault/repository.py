"""All SQL about the vault's keyring and its keys; the audit chain has a file of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Select, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import every, first, insert_into
from ai_lab.vault.cipher import Place
from ai_lab.vault.schemas import KeyState
from ai_lab.vault.tables import vault_keys, vault_state


@dataclass(frozen=True, slots=True)
class StoredState:
    """The vault's one row."""

    generation: int
    #: The keyring under each root key that opens it: {root key id: {"wrapped": …, "created_at": …}}.
    wrappings: dict[str, dict[str, str]] = field(repr=False)
    salt: bytes
    rotation: dict[str, Any] | None
    audit_sequence: int
    audit_mac: str


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is stored: the secret is encrypted in ``token``, which is None once it is erased."""

    id: str
    service_name: str
    label: str
    base_url: str | None
    base_origin: str
    state: KeyState
    version: int
    token: str | None = field(repr=False)
    data_key: str | None
    hint: str
    fingerprint: str
    details: dict[str, Any]
    last_test: dict[str, Any] | None
    created_at: datetime
    rotated_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def place(self) -> Place:
        """Return what the secret of this row is bound to."""
        return Place(self.id, self.service_name, self.base_origin, self.version)


class VaultRepository:
    """Statements of one unit of work. ``touched`` collects the ids of rows that it changed."""

    def __init__(self, db: AsyncConnection) -> None:
        self.db = db
        self.touched: set[str] = set()

    # -- the one row -----------------------------------------------------------------------------------------------

    async def state(self) -> StoredState | None:
        """Return the vault's row; None before its first start."""
        return _as_state(first(await self.db.execute(_state())))

    async def generation(self) -> int | None:
        """Return the number that every change moves on; None before the first start."""
        return cast("int | None", (await self.db.execute(select(vault_state.c.generation))).scalar())

    async def lock(self) -> StoredState | None:
        """Return the row and keep every other change waiting until this unit of work ends."""
        return _as_state(first(await self.db.execute(_state().with_for_update())))

    async def create_state(self, values: dict[str, Any]) -> bool:
        """Insert the row; returns False where another process was first."""
        statement = insert_into(self.db, vault_state).values(id=1, **values).on_conflict_do_nothing()
        return (await self.db.execute(statement.returning(vault_state.c.id))).first() is not None

    async def save_state(self, **values: Any) -> None:
        """Change columns of the row."""
        await self.db.execute(update(vault_state).values(values))

    # -- keys ------------------------------------------------------------------------------------------------------

    async def keys(self, ids: Collection[str] | None = None, *, with_revoked: bool = False) -> list[KeyRow]:
        """Return keys, the oldest first; ``ids`` are returned in whatever state they are."""
        statement = select(vault_keys).order_by(vault_keys.c.created_at, vault_keys.c.id)
        if ids is not None:
            statement = statement.where(vault_keys.c.id.in_(ids))
        elif not with_revoked:
            statement = statement.where(vault_keys.c.state != "revoked")
        return [KeyRow(**row) for row in every(await self.db.execute(statement))]

    async def insert_key(self, values: dict[str, Any]) -> bool:
        """Insert a key; returns False where the service has one of this label."""
        statement = insert_into(self.db, vault_keys).values(values).on_conflict_do_nothing()
        is_new = (await self.db.execute(statement.returning(vault_keys.c.id))).first() is not None
        if is_new:
            self.touched.add(values["id"])
        return is_new

    async def update_key(
        self, key_id: str, values: dict[str, Any], *, if_version: int | None = None, if_data_key: str | None = None
    ) -> bool:
        """Change a key; returns False where it is gone, or its version or data key is not the one expected."""
        statement = update(vault_keys).where(vault_keys.c.id == key_id).values(values)
        if if_version is not None:
            statement = statement.where(vault_keys.c.version == if_version)
        if if_data_key is not None:
            statement = statement.where(vault_keys.c.data_key == if_data_key)
        result = cast("CursorResult[Any]", await self.db.execute(statement))
        if result.rowcount:
            self.touched.add(key_id)
        return bool(result.rowcount)


def _state() -> Select[Any]:
    return select(*(column for column in vault_state.c if column.name != "id")).where(vault_state.c.id == 1)


def _as_state(row: dict[str, Any] | None) -> StoredState | None:
    return StoredState(**row) if row else None
