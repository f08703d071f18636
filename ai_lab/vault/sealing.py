"""Why a vault is sealed, and what opens it."""

from __future__ import annotations

from ai_lab.errors import VaultSealed


_RESTART = "start AI Lab again"


class Sealed(Exception):
    """There is no root key that can be used. ``reason`` and ``remedy`` are sentences for people, free of secrets.

    A sealed vault looks for its root key at the next start only; the remedy says so.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy if _RESTART in remedy else f"{remedy} Then {_RESTART}."
        super().__init__(f"{reason} {self.remedy}")

    def as_error(self) -> VaultSealed:
        """Return what a request gets."""
        return VaultSealed(f"The vault is sealed. {self.reason} {self.remedy}")
