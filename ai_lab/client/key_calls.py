"""What can be asked of a server's vault. A secret goes to the server and never comes back."""

from __future__ import annotations

from typing import Any

from ai_lab.client.calls import Call, once, place
from ai_lab.errors import NotFound
from ai_lab.vault.schemas import (
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


def add(new: NewKey) -> Call[KeyAnswer]:
    """Store a key."""
    body = new.model_dump(mode="json") | {"api_key": new.api_key.get_secret_value()}
    return Call("POST", "/api-keys", KeyAnswer.model_validate_json, body=body, headers=once())


def listed(*, with_revoked: bool) -> Call[ApiKeyList]:
    """List keys and services."""
    return Call("GET", "/api-keys", ApiKeyList.model_validate_json, {"revoked": with_revoked})


def change(service: str, label: str | None, fields: KeyChange) -> Call[KeyAnswer]:
    """Change what a key is called or where it is used."""
    body = fields.model_dump(mode="json", exclude_none=True)
    path, params = place("api-keys", service), {"label": label}
    return Call("PATCH", path, KeyAnswer.model_validate_json, params, body, once())


def remove(service: str, label: str | None) -> Call[KeyAnswer]:
    """Remove a key."""

    def read(body: bytes) -> KeyAnswer:
        if not body:  # the first of two attempts had done it
            return KeyAnswer(success=True, message="The key is removed.", service_name=service)
        return KeyAnswer.model_validate_json(body)

    path, params = place("api-keys", service), {"label": label}
    return Call("DELETE", path, read, params, headers=once(), settled_by=NotFound)


def test(service: str, label: str | None, given: KeyToTest | None) -> Call[KeyTestAnswer]:
    """Test a stored key, or one that is given."""
    body: dict[str, Any] | None = None
    if given is not None and given.api_key is not None:
        body = {"api_key": given.api_key.get_secret_value(), "base_url": given.base_url}
    path, params = place("api-keys", service, "test"), {"label": label}
    return Call("POST", path, KeyTestAnswer.model_validate_json, params, body, once())


def rotate() -> Call[Rotation]:
    """Move all secrets to a new data key."""
    return Call("POST", "/api-keys/rotate", Rotation.model_validate_json, headers=once())


def rotation() -> Call[Rotation]:
    """Say how far that is."""
    return Call("GET", "/api-keys/rotation", Rotation.model_validate_json)


def rekey() -> Call[Rekey]:
    """Change the root key."""
    return Call("POST", "/api-keys/rekey", Rekey.model_validate_json, headers=once())


def reset() -> Call[VaultStatus]:
    """Start a sealed vault anew."""
    body = {"i_know": True}
    return Call("POST", "/api-keys/reset", VaultStatus.model_validate_json, body=body, headers=once())


def audit(limit: int, after: str | None) -> Call[AuditPage]:
    """List what was done with keys."""
    return Call("GET", "/api-keys/audit", AuditPage.model_validate_json, {"limit": limit, "after": after})


def verify_audit(anchor: str | None) -> Call[AuditVerification]:
    """See that the list is whole."""
    return Call("GET", "/api-keys/audit/verify", AuditVerification.model_validate_json, {"anchor": anchor})


def status() -> Call[VaultStatus]:
    """Say whether the vault is open."""
    return Call("GET", "/api-keys/status", VaultStatus.model_validate_json)
