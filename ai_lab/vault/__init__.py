"""Owns API keys: encrypted, bound to their service and address, tested, rotated, audited. Talks to no model.

``Vault`` is loaded when it is first asked for: it needs cryptography, which ``import ai_lab`` must not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_lab.vault.service import Vault

__all__ = ["Vault"]


def __getattr__(name: str) -> Any:
    """Give the one name of this package."""
    if name == "Vault":
        from ai_lab.vault.service import Vault  # noqa: PLC0415 - see above

        return Vault
    raise AttributeError(f"module 'ai_lab.vault' has no attribute {name!r}")
