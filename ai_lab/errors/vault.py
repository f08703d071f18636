"""What goes wrong with API keys."""

from __future__ import annotations

from ai_lab.errors.requests import Conflict, LabError, NotFound


class VaultSealed(LabError):
    """The vault has no root key that fits: nothing can be read or written until it has."""

    status, code, title = 503, "vault_sealed", "The vault is sealed"


class ApiKeyRefused(LabError):
    """What was given can never work as a key of this service."""

    status, code, title = 422, "api_key_refused", "This is no key of this service"


class ApiKeyNotFound(NotFound):
    """No key is stored for this service, or none with this label."""

    code, title = "api_key_not_found", "API key not found"


class ServiceNotFound(NotFound):
    """No service has this name; ``near_matches`` are the closest names."""

    code, title = "service_not_found", "Service not found"

    def __init__(self, detail: str, near_matches: list[str] | None = None) -> None:
        super().__init__(detail, param="service_name")
        self.near_matches = near_matches or []


class ApiKeyExists(Conflict):
    """The same key is stored already, or another one has this label."""

    code, title = "api_key_exists", "API key exists already"


class ApiKeyAmbiguous(Conflict):
    """The service has several keys, and the request does not say which."""

    code, title = "api_key_ambiguous", "Which of the keys?"


class ApiKeyUnusable(Conflict):
    """A key is stored, but it was tampered with, cannot be read, or must be entered again."""

    code, title = "api_key_unusable", "The stored API key cannot be used"


class VaultBusy(Conflict):
    """A rotation or re-key is going on; what was asked for can be done after it."""

    code, title = "vault_busy", "The vault is being rotated"


class RootKeyElsewhere(Conflict):
    """The root key comes from outside, and must be replaced there."""

    code, title = "root_key_elsewhere", "The root key is not ours to replace"
