"""What a vault holds in memory, and how it changes: the open keyring, and the rows as they are in the database.

Rows are ciphertext here too. ``vault_state.generation`` grows with every change; it is looked at at most once a second,
so that several processes on one database agree within a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database import Database
from ai_lab.settings import Settings
from ai_lab.vault.audit import Audit
from ai_lab.vault.audit_repository import AuditRepository
from ai_lab.vault.keyring import Keyring
from ai_lab.vault.repository import KeyRow, StoredState, VaultRepository
from ai_lab.vault.root_key import RootKey, find_root_key
from ai_lab.vault.schemas import Rotation
from ai_lab.vault.sealing import Sealed
from ai_lab.vault.unsealing import NO_KEYRING, Unsealed, new_salt, new_state, open_keyring, unseal

_LOOK_AGAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class VaultState:
    """Keyring and rows; ``sealed`` says why there is no keyring.

    Attributes:
        database: where the vault lies.
        settings: of the lab; they name the source of the root key.
        stored: the vault's row as it was last seen; None before the first start.
        rows: keys that are not revoked by id, the oldest first.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.stored: StoredState | None = None
        self.rows: dict[str, KeyRow] = {}
        self.sealed: Sealed | None = NO_KEYRING
        self._unsealed: Unsealed | None = None
        self._by_service: dict[str, list[KeyRow]] = {}
        self._looked_at = float("-inf")

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def keyring(self) -> Keyring:
        """Return the open keyring; raises ``VaultSealed``."""
        return self.require_open()

    @property
    def root(self) -> RootKey:
        """Return the root key that opened the keyring; raises ``VaultSealed``."""
        return self._open().root

    @property
    def next_root(self) -> RootKey | None:
        """Return the configured root key where the vault was opened with ENCRYPTION_KEY_PREVIOUS and is to move."""
        return self._unsealed.next_root if self._unsealed else None

    def require_open(self) -> Keyring:
        """Return the open keyring; raises ``VaultSealed``."""
        return self._open().keyring

    def of_service(self, service_name: str) -> list[KeyRow]:
        """Return the keys of a service that are not revoked, the oldest first."""
        return self._by_service.get(service_name, [])

    def rotation(self) -> Rotation | None:
        """Return the newest rotation; None where there was none, or its record was changed beyond reading."""
        if self.stored is None or not self.stored.rotation:
            return None
        try:
            return Rotation.model_validate(self.stored.rotation)
        except ValidationError:
            return None

    def service_names(self) -> list[str]:
        """Return the services that have keys, in the order of the oldest one."""
        return list(self._by_service)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything; at the very first start make the keyring. A root key that cannot be used seals the vault."""
        stored, rows = await self._read()
        sealed = None
        if stored is None:
            try:
                await self._create()
            except Sealed as error:
                sealed = error
            stored, rows = await self._read()
        await self.take(stored, rows)
        if stored is None and sealed:
            self.sealed = sealed
            _log.error("the vault is sealed", extra={"reason": sealed.reason, "remedy": sealed.remedy})

    async def refresh(self) -> None:
        """See whether another process changed something, at most once a second."""
        moment = time.monotonic()
        if moment - self._looked_at < _LOOK_AGAIN_SECONDS:
            return
        self._looked_at, before = moment, self.stored
        try:
            async with self.database.reading() as db:
                generation = await VaultRepository(db).generation()
            if generation == (before.generation if before else None):
                return
            stored, rows = await self._read()
        except BaseException:
            self._looked_at = float("-inf")
            raise
        if self.stored is before:  # else a change of our own was quicker and knows more
            await self.take(stored, rows)

    async def with_revoked(self) -> list[KeyRow]:
        """Return all keys, those too that were revoked, the oldest first."""
        async with self.database.reading() as db:
            return await VaultRepository(db).keys(with_revoked=True)

    async def set_back(self) -> list[str]:
        """Return ids of keys that are older than the audit chain says, or gone."""
        async with self.database.reading() as db:
            return await VaultRepository(db).set_back()

    async def take(self, stored: StoredState | None, rows: Iterable[KeyRow]) -> None:
        """Remember what was just read, and open the keyring where it is another one."""
        unsealed, sealed = self._unsealed, self.sealed
        if stored is None:
            unsealed, sealed = None, NO_KEYRING
        elif unsealed is None or self.stored is None or stored.wrappings != self.stored.wrappings:
            try:
                unsealed, sealed = await self._unseal(stored), None
            except Sealed as error:
                unsealed, sealed = None, error
        if sealed and sealed is not self.sealed:
            _log.error("the vault is sealed", extra={"reason": sealed.reason, "remedy": sealed.remedy})
        self.stored, self._unsealed, self.sealed = stored, unsealed, sealed
        self.rows = {row.id: row for row in rows if row.state != "revoked"}
        self._index()

    # -- changing --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[tuple[AsyncConnection, VaultRepository]]:
        """Open the one kind of transaction that changes the vault: durable, and one at a time over all processes.

        Inside, this object knows the newest rows and keyring. Changes go through the repository that is yielded; what
        it touched is in memory once the block has ended. An error in the block undoes all of it.

        Raises:
            VaultSealed: nothing is changed by a vault that cannot be read.
            DatabaseUnavailable: neither is anything where this is raised.
        """
        if self.sealed:
            await self.refresh()  # another process may have opened it
        self._open()
        async with self.database.transaction(durable=True) as db:
            repository = VaultRepository(db)
            stored = await repository.lock()
            if stored is None or self.stored is None or stored.generation != self.stored.generation:
                await self.take(stored, await repository.keys())
            self._open()
            yield db, repository
            fresh = await repository.move_on()
            touched = await repository.keys(repository.touched) if repository.touched else []
        if fresh and self.stored and fresh.generation > self.stored.generation:
            rows = self.rows | {row.id: row for row in touched}  # new ones at the end: they are the youngest
            await self.take(fresh, rows.values())

    # -- how -------------------------------------------------------------------------------------------------------

    async def _read(self) -> tuple[StoredState | None, list[KeyRow]]:
        async with self.database.reading() as db:
            repository = VaultRepository(db)
            while True:
                stored, rows = await repository.state(), await repository.keys()
                # Postgres shows each statement what is committed by then: rows may be newer than their keyring.
                if await repository.generation() == (stored.generation if stored else None):
                    return stored, rows

    async def _create(self) -> None:
        """Make the first keyring, unless keys are stored that another one belongs to."""
        async with self.database.reading() as db:
            if await VaultRepository(db).keys(with_revoked=True) or await AuditRepository(db).newest(1):
                raise NO_KEYRING
        salt, keyring = new_salt(), Keyring.new()
        # The root key first: a keyring that nothing opens would be worse than a root key that opens nothing.
        root = await asyncio.to_thread(find_root_key, self.settings, salt, ())
        async with self.database.transaction(durable=True) as db:
            if await VaultRepository(db).create_state(new_state(keyring, root, salt)):
                await Audit(keyring).append(db, action="initialize", outcome="ok", actor="vault")

    async def _unseal(self, stored: StoredState) -> Unsealed:
        if self._unsealed and self._unsealed.root.id in stored.wrappings:
            root = self._unsealed.root
            return Unsealed(open_keyring(stored, root), root, self._unsealed.next_root)
        return await asyncio.to_thread(unseal, self.settings, stored)

    def _open(self) -> Unsealed:
        if self._unsealed is None:
            raise (self.sealed or NO_KEYRING).as_error()
        return self._unsealed

    def _index(self) -> None:
        self._by_service = {}
        for row in self.rows.values():
            self._by_service.setdefault(row.service_name, []).append(row)
