"""Puts the keyring under another root key, so that at every instant one that is kept safe opens it.

    1. The new root key is written where it belongs, and synced.
    2. One transaction adds the keyring wrapped by it, beside the old wrapping.
    3. The new root key is read again from where it is kept, and opens what is in the database.
    4. One transaction removes the old wrapping.

An end between 2 and 4 leaves two wrappings: the next start opens the newer one and goes on with step 3.
"""

from __future__ import annotations

import asyncio

from ai_lab.errors import RootKeyElsewhere, VaultBusy
from ai_lab.vault.audit import Audit
from ai_lab.vault.repository import StoredState, VaultRepository
from ai_lab.vault.root_key import RootKey, configured_root_key, find_root_key, kind_of, make_root_key
from ai_lab.vault.schemas import Rekey
from ai_lab.vault.sealing import Sealed
from ai_lab.vault.state import VaultState
from ai_lab.vault.unsealing import open_keyring, wrapping

_CONFIGURED = ("named file", "environment")


class RootKeyChange:
    """Changes the root key of one vault.

    Args:
        state: of the vault.
        turn: held by whatever writes the keyring.
    """

    def __init__(self, state: VaultState, turn: asyncio.Lock) -> None:
        self._state = state
        self._turn = turn

    def is_unfinished(self) -> bool:
        """Return whether two root keys open the vault at the moment."""
        stored = self._state.stored
        return stored is not None and len(stored.wrappings) > 1

    def refuse_if_unfinished(self) -> None:
        """Raise ``VaultBusy`` where two root keys open the vault: what is written under one alone would be lost."""
        if self.is_unfinished():
            raise VaultBusy(
                "A change of the root key has not come to its end. Try again in a moment; where that does not help, "
                "run `ai-lab vault rekey`.",
                retry_after_seconds=1,
            )

    async def change(self, *, actor: str) -> Rekey:
        """Put the vault under a new root key.

        One is made where the source is ours: a file or the system's keyring. A source that is configured must hold the
        new one already: the file of ENCRYPTION_KEY_FILE, or ENCRYPTION_KEY.

        Raises:
            VaultSealed: the present root key is needed too.
            RootKeyElsewhere: the configured source still holds the present one, or the new one cannot be kept.
            VaultBusy: another process is changing it.
        """
        async with self._turn:
            await self._state.refresh()
            await self._finish(actor)
            old = self._state.root
            try:
                new = await asyncio.to_thread(self._new_root, old)
            except Sealed as error:
                raise RootKeyElsewhere(f"The root key was not changed. {error}") from error
            await self._add(new, actor)
            await self._confirm(old, new, actor)
        return Rekey(root_key_source=new.source, root_key=new.id, message=self._message(old, new))

    async def finish(self, *, actor: str) -> None:
        """Go on with what an earlier process began; move to the root key that a vault was opened to move to."""
        async with self._turn:
            await self._finish(actor)

    async def _finish(self, actor: str) -> None:
        state = self._state
        if new := state.next_root:
            old = state.root
            await self._add(new, actor)
            await self._confirm(old, new, actor)
        elif self.is_unfinished() and state.stored and _newest(state.stored) == state.root.id:
            await self._confirm(None, state.root, actor)

    def _new_root(self, old: RootKey) -> RootKey:
        """Return the root key to change to. It blocks."""
        settings, stored = self._state.settings, self._state.stored
        if kind_of(settings) not in _CONFIGURED or stored is None:
            return make_root_key(settings)
        new = configured_root_key(settings, stored.salt)
        if new.id != old.id:
            return new
        if settings.encryption_key_file:
            raise Sealed(
                f"{new.source} holds the present one.",
                "Keep a copy of it, put a new one into the file (`openssl rand -hex 32` prints one), and run this "
                "again before the next start.",
            )
        raise Sealed(
            "It comes from ENCRYPTION_KEY, which this server cannot set.",
            "Set ENCRYPTION_KEY_PREVIOUS to the present one and ENCRYPTION_KEY to a new one (`openssl rand -hex 32` "
            "prints one), and start again: the vault then moves by itself.",
        )

    async def _add(self, new: RootKey, actor: str) -> None:
        async with self._state.changing() as (db, repository):
            stored, old, keyring = self._state.stored, self._state.root, self._state.keyring
            if stored is None or new.id == old.id:
                raise VaultBusy("Another server has just changed the root key.", retry_after_seconds=1)
            kept = {old.id: stored.wrappings[old.id]}
            await repository.save_state(wrappings=kept | wrapping(keyring, new))
            details = {"from": old.id, "to": new.id, "source": new.source}
            await Audit(keyring).append(db, action="rekey_started", outcome="ok", actor=actor, details=details)

    async def _confirm(self, old: RootKey | None, new: RootKey, actor: str) -> None:
        """Open the database with the new root key as it is kept; then it alone remains. Otherwise the old one does."""
        try:
            await self._open_with(new)
        except Sealed as error:
            if old:
                await self._keep_only(old, "failed", actor)
            raise RootKeyElsewhere(f"The root key was not changed. {error}") from error
        await self._keep_only(new, "ok", actor)

    async def _open_with(self, new: RootKey) -> None:
        async with self._state.database.reading() as db:
            stored = await VaultRepository(db).state()
        if stored is None or new.id not in stored.wrappings:
            raise VaultBusy("Another server has just changed the root key.", retry_after_seconds=1)
        again = await asyncio.to_thread(find_root_key, self._state.settings, stored.salt, [new.id])
        if open_keyring(stored, again) != self._state.keyring:
            raise Sealed("Under it, the keyring in the database is another one.", "Restore the database from a backup.")

    async def _keep_only(self, root: RootKey, outcome: str, actor: str) -> None:
        async with self._state.changing() as (db, repository):
            stored = self._state.stored
            if stored is None or root.id not in stored.wrappings:
                raise VaultBusy("Another server has just changed the root key.", retry_after_seconds=1)
            if len(stored.wrappings) == 1:  # it went on with the same, and was quicker
                return
            await repository.save_state(wrappings={root.id: stored.wrappings[root.id]})
            await Audit(self._state.keyring).append(
                db, action="rekey_finished", outcome=outcome, actor=actor, details={"root_key": root.id}
            )

    def _message(self, old: RootKey, new: RootKey) -> str:
        match new.kind:
            case "file":
                text = (
                    f"The vault has a new root key: {new.source}. Back it up apart from the data. {old.source} is "
                    "needed for older backups of the database alone; delete it after them."
                )
            case "keyring":
                text = (
                    "The vault has a new root key, in the system's keyring. The one before it is needed for older "
                    "backups of the database alone."
                )
            case _:
                text = (
                    f"The vault is under the root key of {new.source} now. Keep the one before it as long as backups "
                    "of the database need it."
                )
        return (
            text if self._state.database.is_sqlite else f"{text} Other servers of this database need the new one too."
        )


def _newest(stored: StoredState) -> str:
    return max(stored.wrappings, key=lambda root_id: stored.wrappings[root_id]["created_at"])
