"""Tests of keys at their service: noted before they are made, remembered after."""

from __future__ import annotations

import logging

from ai_lab.errors import DatabaseUnavailable, InvalidRequest
from ai_lab.providers.known_services import origin_of
from ai_lab.providers.outbound import Outbound
from ai_lab.vault.addresses import Address, Addresses
from ai_lab.vault.formats import judge
from ai_lab.vault.schemas import CheckReport, KeyToTest
from ai_lab.vault.state import VaultState
from ai_lab.vault.storing import Storing
from ai_lab.vault.use import KeyUse

_log = logging.getLogger(__name__)
_Tested = tuple[CheckReport, str | None, list[str]]


class KeyTest:
    """Asks services whether keys work, each by its cheapest free request."""

    def __init__(
        self, state: VaultState, addresses: Addresses, storing: Storing, use: KeyUse, outbound: Outbound
    ) -> None:
        self._state = state
        self._addresses = addresses
        self._storing = storing
        self._use = use
        self._outbound = outbound

    async def run(self, service_name: str, label: str | None, given: KeyToTest | None, *, actor: str) -> _Tested:
        """Return what the service said, the label of the key, and warnings about the given one.

        Args:
            service_name: as ``Addresses.name_of`` returns it.
            label: of the stored key, or its name in the environment; None: the key that would be used.
            given: a key to test without storing it.
            actor: who asks.

        Raises:
            ApiKeyNotFound, ServiceNotFound: there is none to test.
            ApiKeyUnusable: the stored one cannot be read.
            ApiKeyRefused, InvalidRequest, AddressRefused: the given one, or its address, can never work; or an address
                was given without a key.
            VaultSealed, DatabaseUnavailable: the test could not be noted, and was not made.
        """
        await self._state.refresh()
        self._state.require_open()
        if given and given.api_key:
            return await self._given(service_name, given.api_key.get_secret_value(), given.base_url, actor)
        if given and given.base_url:
            raise InvalidRequest(
                "base_url is only for a key that is given as api_key beside it: a stored key goes to its own address.",
                param="base_url",
            )
        rows = self._state.of_service(service_name)
        row = self._use.row_for(service_name) if label is None else next((r for r in rows if r.label == label), None)
        if row is None:
            return await self._of_environment(service_name, label, actor)
        secret = await self._use.decrypted(row, "test", actor=actor)
        await self._storing.note("test", "started", actor=actor, row=row)
        report = await self._checked(self._addresses.of_row(row), secret)
        try:
            await self._storing.remember_test(row, report)
        except DatabaseUnavailable as error:  # the answer is there: whoever waits for it shall have it
            _log.warning("the test of a key could not be remembered", extra={"reason": error.detail})
        return report, row.label, []

    async def _given(self, service_name: str, secret: str, base_url: str | None, actor: str) -> _Tested:
        address = self._addresses.for_storing(service_name, base_url, self._use.row_for(service_name))
        judged = judge(address.known, secret, force=True, has_own_address=address.base_url is not None)
        details = {"origin": address.origin, "is_stored": False}
        await self._storing.note("test", "started", actor=actor, service_name=service_name, details=details)
        warnings = [*judged.notes, *judged.warnings, *self._addresses.remarks(address, base_url)]
        return await self._checked(address, judged.secret), None, warnings

    async def _of_environment(self, service_name: str, label: str | None, actor: str) -> _Tested:
        keys = self._use.environment.get(service_name, [])
        key = next((one for one in keys if label in (None, one.name)), None)
        if key is None:
            raise self._storing.not_found(service_name, label)
        await self._storing.note("test", "started", actor=actor, service_name=service_name, label=key.name)
        known = self._addresses.known(service_name)
        base_url = None if known and known.base_url == key.base_url else key.base_url
        address = Address(service_name, known, base_url, origin_of(key.base_url))
        return await self._checked(address, key.secret), key.name, []

    async def _checked(self, address: Address, secret: str) -> CheckReport:
        from ai_lab.vault.checks import check_key  # noqa: PLC0415 - loads httpx, which a server without calls does not need

        is_local = self._addresses.is_local(address.service_name)
        return await check_key(address.known, address.url, secret, self._outbound, is_local=is_local)
