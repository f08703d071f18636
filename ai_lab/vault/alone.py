"""The vault without a lab around it: for the command line and for scripts, where no server runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ai_lab.database import Database, database_address
from ai_lab.database.setup import prepare_database
from ai_lab.settings import Settings
from ai_lab.vault.service import Vault


@asynccontextmanager
async def opened_vault(settings: Settings | None = None, *, database: Database | None = None) -> AsyncIterator[Vault]:
    """Open the vault of the settings, with its database where none is given; a vault that is sealed opens too.

    Raises:
        StartupError: the database cannot be used; the text has the remedy.
    """
    settings = settings or Settings.load()
    own: Database | None = None
    if database is None:
        address = database_address(settings)
        await prepare_database(address)
        database = own = Database(address)
    try:
        vault = await Vault.open(settings, database)
        try:
            yield vault
        finally:
            await vault.close()
    finally:
        if own:
            await own.close()


async def stored_secret(vault: Vault, service_name: str) -> str | None:
    """Return the secret that a service is called with at the address of its key; None where it has no key.

    Raises:
        ApiKeyUnusable: one is stored and cannot be used; the text has the remedy.
        VaultSealed: there is no root key that fits.
    """
    url = vault.address_of(service_name)
    return await vault.secret_for(service_name, url) if url else None
