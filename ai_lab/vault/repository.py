"""All SQL about the vault's keyring and its keys; the audit chain has a file of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Select, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database.rows import every, first, insert_into
from ai_lab.vault.cipher import Place
from ai_lab.vault.schemas import KeyState
from ai_lab.vault.tables import vault_audit, vault_keys, vault_state

#: Actions whose entries say which version a key has from then on.
VERSIONED = ("create", "update", "revoke")


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
    """Statements of one unit of work.

    Attributes:
        touched: ids of keys that it changed.
        at_the_end: columns of the vault's row that are written together with its next generation.
    """

    def __init__(self, db: AsyncConnection) -> None:
        self.db = db
        self.touched: set[str] = set()
        self.at_the_end: dict[str, Any] = {}

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

    async def move_on(self) -> StoredState | None:
        """Write the next generation, and ``at_the_end``; returns the row as it is then."""
        values = {"generation": vault_state.c.generation + 1} | self.at_the_end
        return _as_state(first(await self.db.execute(update(vault_state).values(values).returning(*_COLUMNS))))

    # -- keys ------------------------------------------------------------------------------------------------------

    async def keys(self, ids: Collection[str] | None = None, *, with_revoked: bool = False) -> list[KeyRow]:
        """Return keys, the oldest first; ``ids`` are returned in whatever state they are."""
        statement = select(vault_keys).order_by(vault_keys.c.created_at, vault_keys.c.id)
        if ids is not None:
            statement = statement.where(vault_keys.c.id.in_(ids))
        elif not with_revoked:
            statement = statement.where(vault_keys.c.state != "revoked")
        return [KeyRow(**row) for row in every(await self.db.execute(statement))]

    async def set_back(self) -> list[str]:
        """Return ids of keys that are gone, or older than the audit chain says: rows are changed forward alone."""
        noted: dict[str, int] = {}
        entries = select(vault_audit.c.target, vault_audit.c.details)
        changes = entries.where(vault_audit.c.action.in_(VERSIONED), vault_audit.c.target.is_not(None))
        for target, details in await self.db.execute(changes):
            noted[target] = max(noted.get(target, 0), details.get("version", 0))
        stored = await self.db.execute(select(vault_keys.c.id, vault_keys.c.version))
        versions = {row.id: row.version for row in stored}
        return [key_id for key_id, version in noted.items() if versions.get(key_id, -1) < version]

    async def insert_key(self, values: dict[str, Any]) -> bool:
        """Insert a key; returns False where the service has one of this label."""
        statement = insert_into(self.db, vault_keys).values(values).on_conflict_do_nothing()
        is_new = (await self.db.execute(statement.returning(vault_keys.c.id))).first() is not None
        if is_new:
            self.touched.add(values["id"])
        return is_new

    async def update_key(
        self, key_id: str, values: dict[str, Any], *, if_version: int | None = None, if_still: KeyRow | None = None
    ) -> bool:
        """Change a key; returns False where it is gone, has another version, or another secret than ``if_still``."""
        statement = update(vault_keys).where(vault_keys.c.id == key_id).values(values)
        if if_version is not None:
            statement = statement.where(vault_keys.c.version == if_version)
        if if_still:
            for name in ("version", "state", "data_key", "token"):
                statement = statement.where(vault_keys.c[name].is_not_distinct_from(getattr(if_still, name)))
        result = cast("CursorResult[Any]", await self.db.execute(statement))
        if result.rowcount:
            self.touched.add(key_id)
        return bool(result.rowcount)

    async def move_keys(self, tokens: Sequence[tuple[KeyRow, str]], data_key: str) -> None:
        """Write tokens of another data key, except where another secret than that of the row is stored by now."""
        if not tokens:
            return
        names = ("id", "version", "state", "data_key", "token")
        unchanged = [vault_keys.c[name] == bindparam(f"was_{name}") for name in names]
        statement = update(vault_keys).where(*unchanged).values(token=bindparam("new_token"), data_key=data_key)
        parameters = [
            {f"was_{name}": getattr(row, name) for name in names} | {"new_token": token} for row, token in tokens
        ]
        await self.db.execute(statement, parameters)
        self.touched.update(row.id for row, _ in tokens)


_COLUMNS = [column for column in vault_state.c if column.name != "id"]


def _state() -> Select[Any]:
    return select(*_COLUMNS).where(vault_state.c.id == 1)


def _as_state(row: dict[str, Any] | None) -> StoredState | None:
    return StoredState(**row) if row else None
