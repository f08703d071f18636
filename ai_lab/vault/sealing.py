"""Why a vault is sealed, and what opens it."""

from __future__ import annotations

from ai_lab.errors import VaultSealed


class Sealed(Exception):
    """There is no root key that can be used. ``reason`` and ``remedy`` are sentences for people, free of secrets."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy

    def as_error(self) -> VaultSealed:
        """Return what a request gets."""
        return VaultSealed(f"Stored API keys cannot be used: {self.reason} {self.remedy}")
