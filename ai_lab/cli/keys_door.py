"""Where ``ai-lab keys`` and ``ai-lab vault`` work: on the server where one runs, else on the vault of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ai_lab.cli.address import explain, find_address
from ai_lab.cli.door import found_server, say
from ai_lab.cli.figures import plain
from ai_lab.client.keys import AsyncKeyClient, key_change, key_to_test, new_key
from ai_lab.errors import LabError, StartupError, Unauthorized
from ai_lab.vault.alone import opened_vault
from ai_lab.vault.schemas import (
    DEFAULT_LABEL,
    ApiKeyList,
    AuditPage,
    AuditVerification,
    KeyAnswer,
    KeyTestAnswer,
    Rekey,
    Rotation,
    VaultStatus,
)
from ai_lab.vault.service import Vault

FINE, FINDINGS, WRONG, INTERRUPTED = 0, 1, 2, 130
_ACTOR = "cli"


class OwnKeys:
    """The vault of this process behind the interface of ``AsyncKeyClient``."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

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
        """Store a key."""
        new = new_key(service_name, api_key, label=label, base_url=base_url, force=force, details=details)
        key, warnings, is_new = await self._vault.add(new, actor=_ACTOR)
        return KeyAnswer.of(key, "stored" if is_new else "replaced", warnings)

    async def list(self, *, with_revoked: bool = False) -> ApiKeyList:
        """Return the keys, and the services that can be used."""
        return await self._vault.listing(with_revoked=with_revoked)

    async def test(
        self,
        service_name: str,
        api_key: str | None = None,
        *,
        label: str | None = None,
        base_url: str | None = None,
    ) -> KeyTestAnswer:
        """Ask the service whether a key works."""
        given = key_to_test(api_key, base_url)
        report, found, warnings = await self._vault.test(service_name, label, given, actor=_ACTOR)
        return KeyTestAnswer.of(service_name, found, report, warnings)

    async def change(
        self, service_name: str, *, label: str | None = None, new_label: str | None = None, base_url: str | None = None
    ) -> KeyAnswer:
        """Change what a key is called, or its address."""
        key = await self._vault.change(service_name, label, key_change(new_label, base_url), actor=_ACTOR)
        return KeyAnswer.of(key, "changed")

    async def remove(self, service_name: str, *, label: str | None = None) -> KeyAnswer:
        """Erase a key."""
        key = await self._vault.remove(service_name, label, actor=_ACTOR)
        return KeyAnswer.of(key, "removed")

    async def rotate(self) -> Rotation:
        """Move all secrets to a new data key."""
        return await self._vault.rotate(actor=_ACTOR)

    async def rotation(self) -> Rotation | None:
        """Say how far that is."""
        return await self._vault.rotation()

    async def rekey(self) -> Rekey:
        """Give the vault a new root key."""
        return await self._vault.rekey(actor=_ACTOR)

    async def reset(self) -> VaultStatus:
        """Start a sealed vault anew."""
        await self._vault.reset(actor=_ACTOR)
        return self._vault.status()

    async def audit(self, *, limit: int = 20, after: str | None = None) -> AuditPage:
        """Return what was done with keys."""
        return await self._vault.audit(limit=limit, after=after)

    async def verify_audit(self, anchor: str | None = None) -> AuditVerification:
        """Return whether that list is whole."""
        return await self._vault.verify_audit(anchor)

    async def status(self) -> VaultStatus:
        """Say whether the vault is open."""
        return self._vault.status()


Keys = AsyncKeyClient | OwnKeys


@asynccontextmanager
async def opened_keys(url: str | None) -> AsyncIterator[Keys]:
    """Give the server's vault; where none was named and none runs, that of this process.

    Raises:
        ServerUnreachable: the server that was named does not answer.
        StartupError: this process cannot do it either.
    """
    async with found_server(url) as client:
        if client:
            yield client.keys
            return
        async with opened_vault() as vault:
            yield OwnKeys(vault)


def ended(work: Callable[[], Coroutine[Any, Any, int]], *, url: str | None) -> int:
    """Run a command to its end and return its exit code; an error is one line with the remedy."""
    try:
        return asyncio.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted.")
        return INTERRUPTED
    except StartupError:
        raise  # said by the command itself
    except Unauthorized as error:
        trouble = explain(find_address(url), error)
        say(f"error: {trouble.what} {trouble.remedy}")
        return WRONG
    except LabError as error:
        say(f"error: {plain(error.detail)}")
        return WRONG
