"""API keys in a server's vault, for both clients: ``client.keys``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from ai_lab.client import key_calls as calls
from ai_lab.errors import ApiKeyRefused, InvalidRequest, NotFound
from ai_lab.vault.schemas import (
    DEFAULT_LABEL,
    ApiKeyList,
    AuditPage,
    AuditVerification,
    KeyAnswer,
    KeyChange,
    KeyTestAnswer,
    KeyToTest,
    NewKey,
    Rekey,
    Rotation,
    VaultStatus,
)

if TYPE_CHECKING:
    from ai_lab.client.connection import AsyncConnection, Connection


class KeyClient:
    """What a server's vault holds. No answer ever holds a key."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        service_name: str,
        api_key: str,
        *,
        label: str = DEFAULT_LABEL,
        base_url: str | None = None,
        force: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> KeyAnswer:
        """Store a key. The same service and label again replaces it.

        Args:
            service_name: openai, anthropic …, or a name of your own with a ``base_url``.
            api_key: never shown again.
            label: tells several keys of a service apart.
            base_url: where the key is used; it goes nowhere else. Default: the service's own address.
            force: store it though it looks like a key of another service.
            details: what else belongs to it.
        """
        return self._connection.send(
            calls.add(new_key(service_name, api_key, label=label, base_url=base_url, force=force, details=details))
        )

    def list(self, *, with_revoked: bool = False) -> ApiKeyList:
        """Return the keys with their states and hints, and the services that can be used."""
        return self._connection.send(calls.listed(with_revoked=with_revoked))

    def test(
        self,
        service_name: str,
        api_key: str | None = None,
        *,
        label: str | None = None,
        base_url: str | None = None,
    ) -> KeyTestAnswer:
        """Ask the service whether the stored key works, or the given one, which is not stored."""
        return self._connection.send(calls.test(service_name, label, key_to_test(api_key, base_url)))

    def change(
        self, service_name: str, *, label: str | None = None, new_label: str | None = None, base_url: str | None = None
    ) -> KeyAnswer:
        """Change what a key is called, or its address; for another address the key must be entered again."""
        return self._connection.send(calls.change(service_name, label, key_change(new_label, base_url)))

    def remove(self, service_name: str, *, label: str | None = None) -> KeyAnswer:
        """Erase a key; the list keeps that there was one."""
        return self._connection.send(calls.remove(service_name, label))

    def rotate(self) -> Rotation:
        """Move all secrets to a new data key, in the background; ``rotation`` says how far it is."""
        return self._connection.send(calls.rotate())

    def rotation(self) -> Rotation | None:
        """Return how far the latest rotation is; None where there never was one."""
        try:
            return self._connection.send(calls.rotation())
        except NotFound:
            return None

    def rekey(self) -> Rekey:
        """Give the vault a new root key."""
        return self._connection.send(calls.rekey())

    def reset(self) -> VaultStatus:
        """Start a vault anew whose root key is lost: labels and hints stay, every key must be entered again."""
        return self._connection.send(calls.reset())

    def audit(self, *, limit: int = 20, after: str | None = None) -> AuditPage:
        """Return what was done with keys, the newest first; ``after`` leads to what was before."""
        return self._connection.send(calls.audit(limit, after))

    def verify_audit(self, anchor: str | None = None) -> AuditVerification:
        """Return whether that list is whole; ``anchor``: a ``sequence:mac`` noted earlier, elsewhere."""
        return self._connection.send(calls.verify_audit(anchor))

    def status(self) -> VaultStatus:
        """Return whether the vault is open, and where its root key comes from."""
        return self._connection.send(calls.status())


class AsyncKeyClient:
    """``KeyClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(
        self,
        service_name: str,
        api_key: str,
        *,
        label: str = DEFAULT_LABEL,
        base_url: str | None = None,
        force: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> KeyAnswer:
        """Store a key. The same service and label again replaces it.

        Args:
            service_name: openai, anthropic …, or a name of your own with a ``base_url``.
            api_key: never shown again.
            label: tells several keys of a service apart.
            base_url: where the key is used; it goes nowhere else. Default: the service's own address.
            force: store it though it looks like a key of another service.
            details: what else belongs to it.
        """
        return await self._connection.send(
            calls.add(new_key(service_name, api_key, label=label, base_url=base_url, force=force, details=details))
        )

    async def list(self, *, with_revoked: bool = False) -> ApiKeyList:
        """Return the keys with their states and hints, and the services that can be used."""
        return await self._connection.send(calls.listed(with_revoked=with_revoked))

    async def test(
        self,
        service_name: str,
        api_key: str | None = None,
        *,
        label: str | None = None,
        base_url: str | None = None,
    ) -> KeyTestAnswer:
        """Ask the service whether the stored key works, or the given one, which is not stored."""
        return await self._connection.send(calls.test(service_name, label, key_to_test(api_key, base_url)))

    async def change(
        self, service_name: str, *, label: str | None = None, new_label: str | None = None, base_url: str | None = None
    ) -> KeyAnswer:
        """Change what a key is called, or its address; for another address the key must be entered again."""
        return await self._connection.send(calls.change(service_name, label, key_change(new_label, base_url)))

    async def remove(self, service_name: str, *, label: str | None = None) -> KeyAnswer:
        """Erase a key; the list keeps that there was one."""
        return await self._connection.send(calls.remove(service_name, label))

    async def rotate(self) -> Rotation:
        """Move all secrets to a new data key, in the background; ``rotation`` says how far it is."""
        return await self._connection.send(calls.rotate())

    async def rotation(self) -> Rotation | None:
        """Return how far the latest rotation is; None where there never was one."""
        try:
            return await self._connection.send(calls.rotation())
        except NotFound:
            return None

    async def rekey(self) -> Rekey:
        """Give the vault a new root key."""
        return await self._connection.send(calls.rekey())

    async def reset(self) -> VaultStatus:
        """Start a vault anew whose root key is lost: labels and hints stay, every key must be entered again."""
        return await self._connection.send(calls.reset())

    async def audit(self, *, limit: int = 20, after: str | None = None) -> AuditPage:
        """Return what was done with keys, the newest first; ``after`` leads to what was before."""
        return await self._connection.send(calls.audit(limit, after))

    async def verify_audit(self, anchor: str | None = None) -> AuditVerification:
        """Return whether that list is whole; ``anchor``: a ``sequence:mac`` noted earlier, elsewhere."""
        return await self._connection.send(calls.verify_audit(anchor))

    async def status(self) -> VaultStatus:
        """Return whether the vault is open, and where its root key comes from."""
        return await self._connection.send(calls.status())


def new_key(
    service_name: str,
    api_key: str,
    *,
    label: str = DEFAULT_LABEL,
    base_url: str | None = None,
    force: bool = False,
    details: Mapping[str, Any] | None = None,
) -> NewKey:
    """Return what is to be stored.

    Raises:
        ApiKeyRefused: a value cannot be one; the text names the field and never the value.
    """
    try:
        return NewKey(
            service_name=service_name,
            api_key=SecretStr(api_key),
            base_url=base_url,
            label=label,
            force=force,
            details=dict(details or {}),
        )
    except ValidationError as error:
        raise ApiKeyRefused(_faults(error)) from None


def key_to_test(api_key: str | None, base_url: str | None) -> KeyToTest | None:
    """Return what is to be tested; None: the stored key. Raises ``InvalidRequest`` as ``new_key`` does."""
    if api_key is None:
        if base_url is not None:
            raise InvalidRequest("A stored key is tested at its own address: base_url goes with a key that is given.")
        return None
    try:
        return KeyToTest(api_key=SecretStr(api_key), base_url=base_url)
    except ValidationError as error:
        raise InvalidRequest(_faults(error)) from None


def key_change(label: str | None, base_url: str | None) -> KeyChange:
    """Return what is to be changed; raises ``InvalidRequest`` as ``new_key`` does."""
    try:
        return KeyChange(label=label, base_url=base_url)
    except ValidationError as error:
        raise InvalidRequest(_faults(error)) from None


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
