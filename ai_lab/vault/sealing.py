"""Why a vault is sealed, and what opens it."""

from __future__ import annotations

from ai_lab.errors import VaultSealed

_RESTART = "start AI Lab again"


class Sealed(Exception):
    """There is no root key that can be used. ``reason`` and ``remedy`` are sentences for people, free of secrets.

    A sealed vault looks for its root key at the next start only: ``remedy`` ends with that, the text of the exception
    leaves it out, for it also says why a re-key of an open vault failed.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        if _RESTART not in remedy:
            remedy += f" Then {_RESTART}." if remedy.endswith(".") else f", then {_RESTART}."
        self.remedy = remedy

    def as_error(self) -> VaultSealed:
        """Return what a request gets."""
        return VaultSealed(f"The vault is sealed. {self.reason} {self.remedy}")
