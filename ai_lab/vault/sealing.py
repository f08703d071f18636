"""Why a vault is sealed, and what opens it."""

from __future__ import annotations

from ai_lab.errors import VaultSealed


class Sealed(Exception):
    """There is no root key that can be used. ``reason`` and ``remedy`` are sentences for people, free of secrets.

    A sealed vault looks for its root key at the next start only.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy

    def as_error(self) -> VaultSealed:
        """Return what a request gets."""
        return VaultSealed(f"The vault is sealed. {self.reason} {self.remedy} Then start AI Lab again.")
