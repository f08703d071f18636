"""Vaults on a real database, opened as several processes would."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select, update
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.settings import Settings
from ai_lab.vault import Vault
from ai_lab.vault.schemas import KeyInfo, NewKey
from ai_lab.vault.tables import vault_audit, vault_keys, vault_state

ME = "api:test"
OpenVault = Callable[..., Awaitable[Vault]]
Rows = list[dict[str, Any]]


def new_secret() -> str:
    return f"sk-CANARY{secrets.token_hex(16)}"


@pytest.fixture
async def open_vault(database_url: str, tmp_path: Path) -> AsyncIterator[OpenVault]:
    """Give a function that opens one more vault on the same database."""
    async with AsyncExitStack() as stack:

        async def opened(**settings: Any) -> Vault:
            database = Database(make_url(database_url))
            stack.push_async_callback(database.close)
            vault = await Vault.open(Settings(**{"config_dir": tmp_path / "config"} | settings), database)
            stack.push_async_callback(vault.close)
            return vault

        yield opened


class Intruder:
    """Writes to the tables as whoever has the database may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def dump(self) -> list[Rows]:
        """Return all rows of the vault."""
        async with self._database.reading() as db:
            return [
                [dict(row) for row in (await db.execute(select(table).order_by(*table.primary_key))).mappings()]
                for table in (vault_state, vault_keys, vault_audit)
            ]

    async def keys(self) -> dict[str, dict[str, Any]]:
        """Return the rows of keys by label."""
        return {row["label"]: row for row in (await self.dump())[1]}

    async def set(self, label: str, **values: Any) -> None:
        """Change columns of a key."""
        await self.execute(update(vault_keys).where(vault_keys.c.label == label).values(values))

    async def insert(self, **values: Any) -> None:
        """Insert a row of a key."""
        await self.execute(insert(vault_keys).values(values))

    async def execute(self, statement: Any) -> None:
        async with self._database.transaction() as db:
            await db.execute(statement)


@pytest.fixture
async def intruder(database_url: str) -> AsyncIterator[Intruder]:
    """Give access to the tables past the vault."""
    database = Database(make_url(database_url))
    yield Intruder(database)
    await database.close()


async def add_key(vault: Vault, service: str = "openai", secret: str | None = None, **values: Any) -> KeyInfo:
    new = NewKey(service_name=service, api_key=SecretStr(secret or new_secret()), **values)
    return (await vault.add(new, actor=ME))[0]


async def actions(vault: Vault) -> list[tuple[str, str, int]]:
    page = await vault.audit(limit=100)
    return [(entry.action, entry.outcome, entry.count) for entry in reversed(page.data)]
