"""Changes of stored keys: each is one transaction, together with its entry in the audit chain."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.clock import new_id, now
from ai_lab.errors import ApiKeyAmbiguous, ApiKeyExists, ApiKeyNotFound, Conflict, LabError
from ai_lab.providers.outbound import is_readable_on_the_way
from ai_lab.vault.addresses import Address, Addresses
from ai_lab.vault.audit import RESET, Audit
from ai_lab.vault.audit_repository import AuditRepository
from ai_lab.vault.cipher import Place, encrypt, fingerprint, hint_of
from ai_lab.vault.formats import judge
from ai_lab.vault.keyring import Keyring
from ai_lab.vault.repository import KeyRow, VaultRepository
from ai_lab.vault.root_key import find_root_key
from ai_lab.vault.schemas import CheckReport, KeyChange, KeyState, NewKey
from ai_lab.vault.sealing import Sealed
from ai_lab.vault.state import VaultState
from ai_lab.vault.unsealing import new_salt, new_state, wrapping

_ERASED: dict[str, Any] = {"token": None, "data_key": None}
_CHANGED = Conflict("Another process has changed the vault at this moment. See how it is now: it may be open again.")


class Storing:
    """Adds, changes and removes keys."""

    def __init__(self, state: VaultState, addresses: Addresses) -> None:
        self._state = state
        self._addresses = addresses

    async def add(self, new: NewKey, *, actor: str) -> tuple[KeyRow, list[str], bool]:
        """Store a key, or replace the one of this service and label. Returns it, warnings, and whether it is new.

        Raises:
            ServiceNotFound, InvalidRequest, AddressRefused: see ``Addresses.for_storing``.
            ApiKeyRefused: it can never work.
            ApiKeyExists: it is stored already, under another label.
            VaultSealed, DatabaseUnavailable: nothing was stored.
        """
        name = self._addresses.name_of(new.service_name)
        async with self._state.changing() as (db, repository):
            stored = self._labelled(name, new.label)
            address = self._addresses.for_storing(name, new.base_url, stored)
            has_own_address = address.base_url is not None
            secret = new.api_key.get_secret_value()
            judged = judge(address.known, secret, force=new.force, has_own_address=has_own_address)
            warnings = [*judged.notes, *judged.warnings, *self._addresses.remarks(address, new.base_url)]
            if not self._addresses.is_local(name) and is_readable_on_the_way(address.url):
                warnings.append("The address begins with http: whoever is on the way can read the key.")
            values = self._encrypted(judged.secret, address, stored)
            if twin := self._twin(name, new.label, values["fingerprint"]):
                raise ApiKeyExists(f"This key is stored already, under the label {twin.label!r}.", param="api_key")
            moment = now()
            values |= {"state": "active", "last_test": None, "revoked_at": None}
            if stored:
                key_id = stored.id
                values |= {"rotated_at": moment, "details": new.details or stored.details}
                await repository.update_key(key_id, values)
            else:
                key_id = values["id"]
                values |= {"service_name": name, "label": new.label, "created_at": moment, "details": new.details}
                if not await repository.insert_key(values):
                    raise Conflict("A key of this name was stored at this moment. Send the request again.")
            (row,) = await repository.keys([key_id])
            details = {"version": row.version, "origin": row.base_origin}
            await self._append(db, row, "update" if stored else "create", actor=actor, details=details)
        return row, warnings, stored is None

    async def change(self, service: str, label: str | None, change: KeyChange, *, actor: str) -> KeyRow:
        """Give a key another label or address. At another address it must be entered again: the secret is erased.

        Raises:
            ApiKeyNotFound, ApiKeyAmbiguous: see ``find``.
            ApiKeyExists: another key of the service has this label.
            InvalidRequest, AddressRefused: see ``Addresses.for_storing``.
            VaultSealed, DatabaseUnavailable: nothing was changed.
        """
        async with self._state.changing() as (db, repository):
            row = self.find(service, label)
            values: dict[str, Any] = {}
            details: dict[str, Any] = {}
            if change.label is not None and change.label != row.label:
                if self._labelled(row.service_name, change.label):
                    raise ApiKeyExists(
                        f"{row.service_name} has another key with the label {change.label!r}.", param="label"
                    )
                values["label"] = change.label
                details["earlier_label"] = row.label
            if change.base_url is not None:
                address = self._addresses.for_storing(row.service_name, change.base_url, row)
                values["base_url"] = address.base_url
                if address.origin != row.base_origin:
                    # Another version too: a token of before must not come back with the address of before.
                    values |= {"base_origin": address.origin, "state": "needs_reentry", "version": row.version + 1}
                    values |= _ERASED | {"last_test": None}
                    details |= {"origin": address.origin, "version": row.version + 1}
            if values:
                await repository.update_key(row.id, values)
                await self._append(db, row, "update", actor=actor, details=details)
            (changed,) = await repository.keys([row.id])
        return changed

    async def remove(self, service: str, label: str | None, *, actor: str) -> KeyRow:
        """Revoke a key and erase its secret; the row stays as history.

        Raises:
            ApiKeyNotFound, ApiKeyAmbiguous: see ``find``.
            VaultSealed, DatabaseUnavailable: nothing was changed.
        """
        async with self._state.changing() as (db, repository):
            row = self.find(service, label)
            values = _ERASED | {"state": "revoked", "revoked_at": now(), "version": row.version + 1}
            await repository.update_key(row.id, values)
            await self._append(db, row, "revoke", actor=actor, details={"version": row.version + 1})
            (removed,) = await repository.keys([row.id])
        return removed

    async def mark(self, row: KeyRow, state: KeyState, action: str, *, actor: str) -> None:
        """Remember that a key cannot be used, and why; what was changed meanwhile stays as it is."""
        async with self._state.changing() as (db, repository):
            current = self._state.rows.get(row.id)
            if (
                current is None
                or current.state == state
                or (current.version, current.token) != (row.version, row.token)
            ):
                return
            await repository.update_key(row.id, {"state": state})
            await self._append(db, row, action, outcome=state, actor=actor)

    async def reset(self, *, actor: str) -> int:
        """Start with a new keyring, while the old one cannot be opened; all keys become unreadable for good.

        Returns:
            How many keys must be entered again.

        Raises:
            Conflict: the vault is open, or another process has changed it: what is stored now may be readable.
            VaultSealed: there is no root key that could be used from now on either.
        """
        state = self._state
        await state.refresh()
        if state.sealed is None:
            raise Conflict("The vault is open: there is nothing to reset. Remove keys one by one, or rotate them.")
        seen, salt = state.stored, new_salt()
        try:
            root = await asyncio.to_thread(find_root_key, state.settings, salt, ())
        except Sealed as error:
            raise error.as_error() from error
        async with state.database.transaction(durable=True) as db:
            repository = VaultRepository(db)
            stored = await repository.lock()
            rows = await repository.keys()
            numbers = [(row.data_key or "").removeprefix("k") for row in rows]
            keyring = Keyring.new(first=1 + max((int(one) for one in numbers if one.isdecimal()), default=0))
            if stored != seen:
                raise _CHANGED
            if stored is None:
                head = next(iter(await AuditRepository(db).newest(1)), {"sequence": 0, "mac": ""})
                values = {"audit_sequence": head["sequence"], "audit_mac": head["mac"]}
                if not await repository.create_state(new_state(keyring, root, salt) | values):
                    raise _CHANGED
            else:
                await repository.save_state(
                    generation=stored.generation + 1, wrappings=wrapping(keyring, root), salt=salt, rotation=None
                )
            for row in rows:
                await repository.update_key(row.id, {"state": "unreadable"})
            details = {"keys": len(rows), "root_key": root.id}
            await Audit(keyring).append(db, action=RESET, outcome="ok", actor=actor, details=details)
        await state.load()
        return len(rows)

    async def remember_test(self, row: KeyRow, report: CheckReport) -> None:
        """Keep what a service said about a key, unless the key was replaced meanwhile."""
        async with self._state.changing() as (_, repository):
            values = {"last_test": report.model_dump(mode="json")}
            await repository.update_key(row.id, values, if_version=row.version)

    async def note(
        self,
        action: str,
        outcome: str,
        *,
        actor: str,
        row: KeyRow | None = None,
        service_name: str | None = None,
        label: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Put into the audit chain what changes no key; raises ``VaultSealed``, ``DatabaseUnavailable``."""
        async with self._state.changing() as (db, _):
            if row:
                await self._append(db, row, action, outcome=outcome, actor=actor, details=details)
                return
            await Audit(self._state.keyring).append(
                db,
                action=action,
                outcome=outcome,
                actor=actor,
                service_name=service_name,
                label=label,
                details=details,
            )

    # -- finding ---------------------------------------------------------------------------------------------------

    def find(self, service: str, label: str | None) -> KeyRow:
        """Return the key that is meant: the one with this label, or the only one.

        Raises:
            ApiKeyNotFound: there is none.
            ApiKeyAmbiguous: there are several, and no label was given.
        """
        name = self._addresses.name_of(service)
        rows = self._state.of_service(name)
        if label is not None:
            rows = [row for row in rows if row.label == label]
        if not rows:
            raise self.not_found(name, label)
        if len(rows) > 1:
            labels = ", ".join(repr(row.label) for row in rows)
            raise ApiKeyAmbiguous(f"{name} has {len(rows)} keys. Say which, by its label: {labels}.", param="label")
        return rows[0]

    def not_found(self, service_name: str, label: str | None) -> LabError:
        """Return the error for a key that is not stored."""
        known = self._addresses.known(service_name)
        if known is None and not self._state.of_service(service_name) and not self._addresses.is_local(service_name):
            return self._addresses.not_found(service_name)
        which = f" with the label {label!r}" if label is not None else ""
        return ApiKeyNotFound(f"No API key{which} is stored for {service_name}.", param="service_name")

    def _labelled(self, service_name: str, label: str) -> KeyRow | None:
        return next((row for row in self._state.of_service(service_name) if row.label == label), None)

    def _twin(self, service_name: str, label: str, print_of_secret: str) -> KeyRow | None:
        """Return the key of the service that has the same secret under another label."""
        rows = self._state.of_service(service_name)
        return next(
            (row for row in rows if row.label != label and row.token and row.fingerprint == print_of_secret), None
        )

    # -- how -------------------------------------------------------------------------------------------------------

    def _encrypted(self, secret: str, address: Address, stored: KeyRow | None) -> dict[str, Any]:
        """Return the columns that hold a secret and what it is bound to."""
        keyring = self._state.keyring
        key_id, version = (stored.id, stored.version + 1) if stored else (new_id(), 1)
        place = Place(key_id, address.service_name, address.origin, version)
        return {
            "id": key_id,
            "base_url": address.base_url,
            "base_origin": address.origin,
            "version": version,
            "token": encrypt(secret, place, keyring.active, keyring.data_keys[keyring.active].key),
            "data_key": keyring.active,
            "hint": hint_of(secret),
            "fingerprint": fingerprint(secret, keyring.index_key),
        }

    async def _append(
        self,
        db: AsyncConnection,
        row: KeyRow,
        action: str,
        *,
        actor: str,
        outcome: str = "ok",
        details: dict[str, Any] | None = None,
    ) -> None:
        await Audit(self._state.keyring).append(
            db,
            action=action,
            outcome=outcome,
            actor=actor,
            target=row.id,
            service_name=row.service_name,
            label=row.label,
            details=details,
        )
