"""What is shown of keys. Nothing here decrypts: hints are stored beside the secret."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ai_lab.providers.known_services import known_services
from ai_lab.vault.addresses import Addresses
from ai_lab.vault.repository import KeyRow
from ai_lab.vault.schemas import CheckReport, KeyInfo, KeyState, SupportedService

#: What to do about a key that cannot be used.
REMEDIES: dict[KeyState, str] = {
    "unreadable": "It was encrypted with a key that this vault no longer has. Enter it again (ai-lab keys add), or "
    "remove it.",
    "tampered": "What is stored was changed from outside of AI Lab and is not used. Enter the key again (ai-lab keys "
    "add), and look into the audit (ai-lab vault audit --verify) for what happened.",
    "needs_reentry": "Its address has changed, and a key goes to no address that it was not given for. Enter it again "
    "(ai-lab keys add); where a setting (AI_LAB_SERVERS, OLLAMA_HOST) has changed it, setting that back helps too.",
}


def shown(row: KeyRow, addresses: Addresses) -> KeyInfo:
    """Return what may be shown of a stored key."""
    known, state = addresses.known(row.service_name), addresses.state_of(row)
    return KeyInfo(
        id=row.id,
        service_name=row.service_name,
        label=row.label,
        base_url=row.base_url or (known.base_url if known else None),
        state=state,
        hint=row.hint,
        version=row.version,
        created_at=row.created_at,
        rotated_at=row.rotated_at,
        last_used_at=row.last_used_at,
        last_test=_report(row.last_test),
        details=row.details if isinstance(row.details, dict) else {},
        remedy=REMEDIES.get(state),
    )


def _report(stored: Any) -> CheckReport | None:
    """Return a stored report; None for what was never written as one: a list of keys must not fail on it."""
    try:
        return CheckReport.model_validate(stored) if stored else None
    except ValidationError:
        return None


def supported_services() -> dict[str, SupportedService]:
    """Return the services that are known by name; any other one needs its address."""
    return {
        name: SupportedService(
            title=service.title,
            base_url=service.base_url,
            needs_base_url=service.base_url is None,
            needs_key=service.needs_key,
            key_hint=service.key_hint,
            help_url=service.help_url,
            environment_names=list(service.environment_names),
        )
        for name, service in known_services().items()
    }
