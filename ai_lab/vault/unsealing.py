"""From the stored keyring and a root key to the open keyring; and the very first one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ai_lab.clock import now
from ai_lab.settings import Settings
from ai_lab.vault.keyring import Keyring, WrongRootKey
from ai_lab.vault.repository import StoredState
from ai_lab.vault.root_key import (
    SALT_BYTES,
    RootKey,
    configured_root_key,
    find_root_key,
    kind_of,
    previous_root_key,
)
from ai_lab.vault.sealing import Sealed

_RESTORE = (
    "Restore the database from a backup and start AI Lab again; where there is none, `ai-lab vault reset` makes a new "
    "vault."
)
NO_KEYRING = Sealed("The database has stored API keys, but not the vault's keyring.", _RESTORE)
_CHANGED = Sealed(
    "The vault's keyring in the database was changed: the root key that it names does not open it.", _RESTORE
)


@dataclass(frozen=True, slots=True)
class Unsealed:
    """The open keyring and the root key that opened it; ``next_root`` is the configured one it is to move to."""

    keyring: Keyring
    root: RootKey
    next_root: RootKey | None = None


def unseal(settings: Settings, stored: StoredState) -> Unsealed:
    """Open the stored keyring. It blocks: call it in a thread.

    Raises:
        Sealed: no root key that fits can be used.
    """
    # A re-key that was cut off leaves two: the newer one is the one that was meant.
    try:
        wanted = sorted(stored.wrappings, key=lambda root_id: stored.wrappings[root_id]["created_at"], reverse=True)
    except (KeyError, TypeError):
        raise _CHANGED from None
    if not wanted:
        raise NO_KEYRING
    try:
        root, next_root = find_root_key(settings, stored.salt, wanted), None
    except Sealed:
        previous = previous_root_key(settings, stored.salt)
        if previous is None or previous.id not in wanted or kind_of(settings) not in ("environment", "named file"):
            raise
        root, next_root = previous, configured_root_key(settings, stored.salt)
    return Unsealed(open_keyring(stored, root), root, next_root)


def open_keyring(stored: StoredState, root: RootKey) -> Keyring:
    """Return the keyring that this root key opens; raises ``Sealed`` where the record was changed."""
    try:
        return Keyring.unwrapped(stored.wrappings[root.id]["wrapped"], root.key)
    except (WrongRootKey, KeyError, TypeError):
        raise _CHANGED from None


def new_state(keyring: Keyring, root: RootKey, salt: bytes) -> dict[str, Any]:
    """Return the columns of the vault's row before anything is stored."""
    return {
        "generation": 1,
        "wrappings": wrapping(keyring, root),
        "salt": salt,
        "rotation": None,
        "audit_sequence": 0,
        "audit_mac": "",
    }


def wrapping(keyring: Keyring, root: RootKey) -> dict[str, dict[str, str]]:
    """Return the keyring as it is stored under one root key."""
    return {root.id: {"wrapped": keyring.wrapped(root.key), "created_at": now().isoformat()}}


def new_salt() -> bytes:
    """Return a salt for a passphrase."""
    return os.urandom(SALT_BYTES)
