"""The import path of programs for the earlier AI-Lab: API keys without a server, in the vault of this installation.

A key is encrypted, bound to its service and noted in the audit, exactly as by ``POST /api-keys``. To use a key, ask a
model through the lab instead: then no program has to hold it.
"""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr, ValidationError

from ai_lab.errors import ApiKeyRefused, InvalidRequest, NotFound
from ai_lab.providers.known_services import canonical, known_services
from ai_lab.settings import Settings
from ai_lab.vault.alone import opened_vault, stored_secret
from ai_lab.vault.formats import judge
from ai_lab.vault.schemas import WORKING, KeyToTest, NewKey

__all__ = ["APIKeyManager", "api_key_manager"]

_ACTOR = "script"


class APIKeyManager:
    """The earlier interface. Failures raise an ``ai_lab.errors.LabError`` with the remedy.

    Args:
        settings: default: read from the environment and ``.env`` at each call.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    async def store_api_key(self, service_name: str, api_key: str, base_url: str | None = None) -> bool:
        """Store a key, or replace the service's; it is safe on disk when this returns.

        Raises:
            ApiKeyRefused: it can never work as a key of this service.
            VaultSealed: there is no root key that fits.
        """
        try:
            new = NewKey(service_name=service_name, api_key=SecretStr(api_key), base_url=base_url)
        except ValidationError as error:
            fields = {str(fault["loc"][0]) for fault in error.errors(include_input=False)}
            raise InvalidRequest(f"{', '.join(sorted(fields))} cannot be used like that.") from None
        async with opened_vault(self._settings) as vault:
            await vault.add(new, actor=_ACTOR)
        return True

    async def get_api_key(self, service_name: str) -> str | None:
        """Return the key that the service is called with, of the vault or else of the environment; None: there is none.

        Raises:
            ApiKeyUnusable: one is stored and was tampered with, cannot be read, or must be entered again.
            VaultSealed: there is no root key that fits.
        """
        async with opened_vault(self._settings) as vault:
            return await stored_secret(vault, service_name)

    async def list_configured_services(self) -> list[str]:
        """Return the services that have a usable key."""
        async with opened_vault(self._settings) as vault:
            return sorted({key.service_name for key in await vault.keys() if key.state == "active"})

    async def remove_api_key(self, service_name: str) -> bool:
        """Erase the service's key; returns False where there is none."""
        async with opened_vault(self._settings) as vault:
            try:
                await vault.remove(service_name, None, actor=_ACTOR)
            except NotFound:
                return False
        return True

    def get_supported_services(self) -> dict[str, str]:
        """Return the title of every service by its name."""
        return {service.name: service.title for service in known_services().values()}

    async def validate_api_key_format(self, service_name: str, api_key: str) -> bool:
        """Return False for what can never work as a key of this service; only ``test_api_key`` knows what does."""
        try:
            judge(known_services().get(canonical(service_name)), api_key)
        except ApiKeyRefused:
            return False
        return True

    async def test_api_key(self, service_name: str, api_key: str) -> dict[str, Any]:
        """Ask the service whether a key works, without storing it; returns ``{service, valid, error, details}``."""
        async with opened_vault(self._settings) as vault:
            try:
                given = KeyToTest(api_key=SecretStr(api_key))
                report, _, warnings = await vault.test(service_name, None, given, actor=_ACTOR)
            except ApiKeyRefused as refusal:
                return {"service": service_name, "valid": False, "error": refusal.detail, "details": {}}
        is_valid = report.result in WORKING
        told = {"result": report.result, "message": report.message, "warnings": warnings} | report.details
        return {
            "service": service_name,
            "valid": is_valid,
            "error": None if is_valid else report.message,
            "details": told,
        }


#: The one object that earlier programs import; it does nothing before its first use.
api_key_manager = APIKeyManager()
