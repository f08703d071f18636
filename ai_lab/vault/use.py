"""Which key a service gets, and the moment at which it is decrypted. Plain text lives in local names only."""

from __future__ import annotations

from ai_lab.errors import ApiKeyUnusable
from ai_lab.providers.known_services import origin_of
from ai_lab.vault.addresses import Addresses
from ai_lab.vault.cipher import Undecipherable, data_key_of, decrypt
from ai_lab.vault.environment import EnvironmentKey
from ai_lab.vault.listing import REMEDIES
from ai_lab.vault.repository import KeyRow
from ai_lab.vault.schemas import DEFAULT_LABEL, KeyState
from ai_lab.vault.state import VaultState
from ai_lab.vault.storing import Storing
from ai_lab.vault.uses import Uses

_LAB = "lab"  # uses keys for a request, which the entry names


class KeyUse:
    """Hands keys out. ``environment`` holds those that are not stored, by service."""

    def __init__(
        self,
        state: VaultState,
        addresses: Addresses,
        storing: Storing,
        uses: Uses,
        environment: dict[str, list[EnvironmentKey]],
    ) -> None:
        self._state = state
        self._addresses = addresses
        self._storing = storing
        self._uses = uses
        self.environment = environment

    def row_for(self, service_name: str) -> KeyRow | None:
        """Return the stored key of a service that is used: the one labelled ``default``, else the oldest.

        One that cannot be used is returned all the same: another account would pay unnoticed if it were passed over.
        """
        rows = self._state.of_service(service_name)
        return next((row for row in rows if row.label == DEFAULT_LABEL), rows[0] if rows else None)

    async def secret_for(self, service_name: str, base_url: str) -> str | None:
        """Return the key that is to be sent to ``base_url``; None where there is none for it.

        The use stands in the audit chain before this returns.

        Raises:
            VaultSealed: there is a key, and the vault cannot be read.
            ApiKeyUnusable: it was changed from outside, cannot be read, or is not bound to this address.
            DatabaseUnavailable: the use could not be noted.
        """
        await self._state.refresh()
        row = self.row_for(service_name)
        if row is None:
            key = next(iter(self.environment.get(service_name, ())), None)
            if key is None or origin_of(base_url) not in key.origins:
                return None
            self._state.require_open()
            await self._uses.note(service_name, key.name, None)
            return key.secret
        if row.state == "active" and not self._addresses.may_go(row, base_url):
            raise _unusable(row, "needs_reentry")
        secret = await self.decrypted(row, "use", actor=_LAB)
        await self._uses.note(service_name, row.label, row.id)
        return secret

    async def decrypted(self, row: KeyRow, action: str, *, actor: str) -> str:
        """Return the secret of a row; a row that cannot be read is remembered as such, with an entry in the audit.

        Args:
            row: as it is in the database.
            action: what it is wanted for.
            actor: who wants it.

        Raises:
            VaultSealed, ApiKeyUnusable, DatabaseUnavailable: see ``secret_for``.
        """
        keyring = self._state.require_open()
        state = self._addresses.state_of(row)
        if state in (row.state, "needs_reentry") and state != "active":
            raise _unusable(row, state)
        found = data_key_of(row.token) if row.token else None
        if row.token and found and (state, found) == ("active", row.data_key):
            if found in keyring.data_keys:
                try:
                    return decrypt(row.token, row.place(), keyring.data_keys[found].key)
                except Undecipherable:
                    state = "tampered"
            else:
                state = "unreadable"
        else:
            state = "tampered"
        await self._storing.mark(row, state, action, actor=actor)
        raise _unusable(row, state)


def _unusable(row: KeyRow, state: KeyState) -> ApiKeyUnusable:
    return ApiKeyUnusable(
        f"The key of {row.service_name} labelled {row.label!r} cannot be used. {REMEDIES.get(state, '')}".rstrip()
    )
