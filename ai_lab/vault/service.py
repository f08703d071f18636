"""The vault of a lab: stores API keys, hands them out at the moment of use, tests, rotates and audits them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ai_lab.database import Database
from ai_lab.errors import LabError, VaultSealed
from ai_lab.providers.outbound import Outbound
from ai_lab.settings import Settings
from ai_lab.vault.addresses import Addresses
from ai_lab.vault.audit import Audit
from ai_lab.vault.environment import SERVERS, keys_of_environment
from ai_lab.vault.key_test import KeyTest
from ai_lab.vault.listing import shown, supported_services
from ai_lab.vault.repository import KeyRow
from ai_lab.vault.root_key import kind_of, source_of
from ai_lab.vault.rotation import Rotator
from ai_lab.vault.schemas import (
    ApiKeyList,
    AuditPage,
    AuditVerification,
    CheckReport,
    KeyChange,
    KeyInfo,
    KeyToTest,
    NewKey,
    Rekey,
    Rotation,
    SupportedService,
    VaultStatus,
)
from ai_lab.vault.state import VaultState
from ai_lab.vault.storing import Storing
from ai_lab.vault.use import KeyUse
from ai_lab.vault.uses import Uses

#: Gets what was done (use, add, change, remove, test, rotate, rekey, reset, open) and the code of the error, if any.
Observe = Callable[[str, str | None], None]

_UPKEEP_SECONDS = 60.0
_UPKEEP_ROUNDS = 5  # rotation and anchor: every fifth minute

_log = logging.getLogger(__name__)


def _unobserved(_operation: str, _error: str | None) -> None:
    """Observe nothing."""


def _say_why(upkeep: asyncio.Task[None]) -> None:
    """Log why the upkeep ended, where it was not told to."""
    if not upkeep.cancelled() and (error := upkeep.exception()):
        _log.error("the vault's upkeep has stopped; start the server again", exc_info=error)


class Vault:
    """One per lab, made by ``open``. It implements ``ai_lab.providers.types.Secrets``.

    Where there is no root key that fits, the vault is sealed: keys are listed with their hints, and everything else
    raises ``VaultSealed``, whose text says what to do. Nothing is written then.
    """

    def __init__(self, settings: Settings, database: Database, observe: Observe) -> None:
        self._observe = observe
        self._state = VaultState(settings, database)
        outbound = Outbound(settings.allowed_addresses)
        self._addresses = Addresses(settings, outbound)
        self._storing = Storing(self._state, self._addresses)
        self._uses = Uses(self._state)
        environment = keys_of_environment(settings, self._addresses)
        self._use = KeyUse(self._state, self._addresses, self._storing, self._uses, environment)
        self._key_test = KeyTest(self._state, self._addresses, self._storing, self._use, outbound)
        self._rotator = Rotator(self._state)
        self._anchored = ""
        self._upkeep: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: Settings, database: Database, *, observe: Observe = _unobserved) -> Vault:
        """Read keyring and keys, finish what an earlier process began, and start counting uses.

        Args:
            settings: name the source of the root key, servers, and keys of the environment.
            database: migrated.
            observe: is told of every operation and its error code.

        Raises:
            DatabaseUnavailable: nothing could be read. A root key that cannot be used only seals the vault.
        """
        vault = cls(settings, database, observe)
        await vault._state.load()
        if not vault._state.sealed:
            if kind_of(settings) == "environment":
                _log.warning(
                    "the root key is in the environment, where /proc/<pid>/environ and `docker inspect` show it: "
                    "ENCRYPTION_KEY_FILE hides it better"
                )
            vault._report_misplaced()
            try:
                await vault._rotator.resume()
            except LabError as error:  # a full disk, a root key that is half changed: what works is to go on working
                _log.warning("the vault could not finish what was begun", extra={"reason": error.detail})
            vault._anchor()
        vault._upkeep = asyncio.create_task(vault._keep_up())
        vault._upkeep.add_done_callback(_say_why)
        observe("open", VaultSealed.code if vault._state.sealed else None)
        return vault

    async def close(self) -> None:
        """Write the uses that wait, log the head of the audit chain, and stop what runs in the background."""
        if self._upkeep:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])  # however it ended: uses that wait are to be written
        await self._rotator.close()
        await self._uses.close()
        self._anchor()

    # -- what there is ---------------------------------------------------------------------------------------------

    def status(self) -> VaultStatus:
        """Return whether the vault is open. Reads nothing."""
        state = self._state
        stored, sealed = state.stored, state.sealed
        return VaultStatus(
            state="sealed" if sealed else "open",
            root_key_source=source_of(state.settings) if sealed else state.root.source,
            reason=sealed.reason if sealed else None,
            remedy=sealed.remedy if sealed else None,
            keys=len(state.rows),
            data_key=None if sealed else state.keyring.active,
            rotation=state.rotation(),
            audit_head=f"{stored.audit_sequence}:{stored.audit_mac}" if stored and stored.audit_sequence else None,
        )

    async def keys(self, *, with_revoked: bool = False) -> list[KeyInfo]:
        """Return stored keys, the oldest first, then those of the environment. A sealed vault lists them too."""
        await self._state.refresh()
        rows: Iterable[KeyRow] = self._state.rows.values()
        if with_revoked:
            rows = await self._state.with_revoked()
        listed = [shown(row, self._addresses) for row in rows]
        return [*listed, *(key.info() for keys in self._use.environment.values() for key in keys)]

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many keys there are by service and state. Reads nothing."""
        rows = self._state.rows.values()
        return dict(Counter((row.service_name, self._addresses.state_of(row)) for row in rows))

    async def listing(self, *, with_revoked: bool = False) -> ApiKeyList:
        """Return all keys, as ``keys`` does, with what can be stored and how the vault is."""
        keys = await self.keys(with_revoked=with_revoked)
        return ApiKeyList(
            configured_services=sorted({key.service_name for key in keys if key.state == "active"}),
            supported_services=self.supported(),
            keys=keys,
            vault=self.status(),
        )

    def supported(self) -> dict[str, SupportedService]:
        """Return the services that are known by name."""
        return supported_services()

    def has_key(self, service: str) -> bool:
        """Return whether there is a key for a service, usable or not. Reads nothing."""
        name = self._addresses.name_of(service)
        return bool(self._state.of_service(name) or self._use.environment.get(name))

    def address_of(self, service: str) -> str | None:
        """Return where the key of a service goes; None where it has none. Reads nothing."""
        name = self._addresses.name_of(service)
        if row := self._use.row_for(name):
            return self._addresses.of_row(row).url
        return next((key.base_url for key in self._use.environment.get(name, ())), None)

    def custom_services(self) -> dict[str, str]:
        """Return address by name: of services that only the vault knows, and of known ones at another address.

        Servers that settings name are left out: settings say where they are. Reads nothing.
        """
        stored = {name: self._use.row_for(name) for name in self._state.service_names()}
        found = {name: row.base_url for name, row in stored.items() if row and row.base_url}
        for name, keys in self._use.environment.items():
            known = self._addresses.known(name)
            if name not in stored and known and keys[0].base_url != known.base_url:
                found[name] = keys[0].base_url
        return {name: url for name, url in found.items() if not self._addresses.is_local(name)}

    # -- changes ---------------------------------------------------------------------------------------------------

    async def add(self, new: NewKey, *, actor: str) -> tuple[KeyInfo, list[str], bool]:
        """Store a key; returns it, warnings, and whether it is new. Raises as ``Storing.add`` does."""
        async with self._observed("add"):
            row, warnings, is_new = await self._storing.add(new, actor=actor)
        if any(key.name == SERVERS for key in self._use.environment.get(row.service_name, ())):
            warnings.append(f"{SERVERS} has a key for this server too: that one is used as long as it stands there.")
        return shown(row, self._addresses), warnings, is_new

    async def change(self, service: str, label: str | None, change: KeyChange, *, actor: str) -> KeyInfo:
        """Give a key another label or address. Raises as ``Storing.change`` does."""
        async with self._observed("change"):
            return shown(await self._storing.change(service, label, change, actor=actor), self._addresses)

    async def remove(self, service: str, label: str | None, *, actor: str) -> KeyInfo:
        """Revoke a key and erase its secret. Raises as ``Storing.remove`` does."""
        async with self._observed("remove"):
            return shown(await self._storing.remove(service, label, actor=actor), self._addresses)

    async def rotate(self, *, actor: str) -> Rotation:
        """Move all secrets to a new data key, in the background; a rotation that runs goes on."""
        async with self._observed("rotate"):
            return await self._rotator.rotate(actor=actor)

    async def rotation(self) -> Rotation | None:
        """Return how far the newest rotation is; None where there never was one."""
        await self._state.refresh()
        return self.status().rotation

    async def rekey(self, *, actor: str) -> Rekey:
        """Change the root key. Raises ``RootKeyElsewhere`` where it is not ours to replace."""
        async with self._observed("rekey"):
            return await self._rotator.rekey(actor=actor)

    async def reset(self, *, actor: str) -> int:
        """Start anew with what is sealed; returns how many keys must be entered again. It cannot be undone."""
        async with self._observed("reset"):
            return await self._storing.reset(actor=actor)

    # -- use -------------------------------------------------------------------------------------------------------

    async def secret_for(self, service: str, base_url: str) -> str | None:
        """Return the key that is to be sent to ``base_url``; None where there is none. Raises as ``KeyUse`` does."""
        async with self._observed("use"):
            return await self._use.secret_for(self._addresses.name_of(service), base_url)

    async def test(
        self, service: str, label: str | None, given: KeyToTest | None, *, actor: str
    ) -> tuple[CheckReport, str | None, list[str]]:
        """Ask a service whether a key works; returns what it said, the label, warnings. Raises as ``KeyTest`` does."""
        async with self._observed("test"):
            return await self._key_test.run(self._addresses.name_of(service), label, given, actor=actor)

    # -- audit -----------------------------------------------------------------------------------------------------

    async def audit(self, *, limit: int = 20, after: str | None = None) -> AuditPage:
        """Return entries of the audit chain, the newest first, also while sealed. Raises ``InvalidCursor``."""
        return await Audit.page(self._state.database, limit, after)

    def audit_head(self) -> tuple[int, str]:
        """Return number and mac of the newest entry that is known to be committed; ``(0, "")``: none. Reads nothing."""
        stored = self._state.stored
        return (stored.audit_sequence, stored.audit_mac) if stored else (0, "")

    async def verify_audit(self, anchor: str | None = None) -> AuditVerification:
        """Walk the audit chain, and see that no key is older than it says.

        Args:
            anchor: a head noted elsewhere, as ``sequence:mac``.

        Raises:
            VaultSealed: the key of the chain cannot be read.
            InvalidRequest: the anchor is none.
        """
        found = await Audit(self._state.require_open()).verify(self._state.database, anchor)
        if found.is_intact and (ids := await self._state.set_back()):
            reason = f"Stored keys are gone, or older than the entries about them: {', '.join(ids)}."
            return found.model_copy(update={"is_intact": False, "reason": reason})
        return found

    async def note(self, action: str, outcome: str, *, actor: str, details: dict[str, Any] | None = None) -> None:
        """Put into the audit chain what happened elsewhere, such as a wrong token; a sealed vault only logs it.

        Raises:
            DatabaseUnavailable: it is not in the chain.
        """
        if self._state.sealed:
            _log.warning("the vault is sealed: not in the audit", extra={"action": action, "outcome": outcome})
            return
        await self._storing.note(action, outcome, actor=actor, details=details)

    # -- by itself -------------------------------------------------------------------------------------------------

    def _report_misplaced(self) -> None:
        """Log which keys are not bound to the address that their service has now."""
        for row in self._state.rows.values():
            if row.state == "active" and (state := self._addresses.state_of(row)) != "active":
                fields = {"service_name": row.service_name, "label": row.label, "state": state}
                _log.warning("an API key is not used: it was given for another address", extra=fields)

    async def _keep_up(self) -> None:
        """Write counted uses every minute; look after rotations and note the head of the audit now and then."""
        rounds = 0
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            rounds += 1
            if self._state.sealed:
                continue
            try:
                await self._uses.write_waiting(all_of_them=False)
                if rounds % _UPKEEP_ROUNDS == 0:
                    await self._rotator.keep_up()
                    self._anchor()
            except LabError as error:  # the next round tries again; what cannot be noted is not handed out
                _log.warning("the vault's upkeep did not succeed", extra={"reason": error.detail})

    def _anchor(self) -> None:
        """Log the head of the audit chain where it has grown: it must stand where no change of the database reaches."""
        sequence, mac = self.audit_head()
        if sequence and self._anchored != mac:
            self._anchored = mac
            _log.info("the vault's audit chain has grown", extra={"audit_head": f"{sequence}:{mac}"})

    @asynccontextmanager
    async def _observed(self, operation: str) -> AsyncIterator[None]:
        try:
            yield
        except LabError as error:
            self._observe(operation, error.code)
            raise
        self._observe(operation, None)
