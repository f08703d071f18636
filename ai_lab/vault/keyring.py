"""The vault's own keys: data keys that encrypt secrets, and those for fingerprints and the audit chain.

All of them are kept as one record that the root key encrypts ("wraps"). A change of the root key therefore writes one
record, and no secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ai_lab.clock import now

KEY_BYTES = 32
_WRAPPING = b"ai-lab/vault/keyring/v1"
_CHECK = b"ai-lab/vault/key-check-value/v1"


class WrongRootKey(Exception):
    """The record was wrapped with another root key, or was changed."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that secrets are encrypted with; ``retired_at``: no row uses it any more."""

    key: bytes = field(repr=False)
    created_at: datetime
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Keyring:
    """The open keyring. ``active`` is the number of the data key that new secrets get."""

    data_keys: dict[str, DataKey] = field(repr=False)
    active: str
    index_key: bytes = field(repr=False)
    audit_key: bytes = field(repr=False)

    @classmethod
    def new(cls, first: int = 1) -> Keyring:
        """Return one with a first data key, ``k1`` where no other number is given."""
        data_key = DataKey(os.urandom(KEY_BYTES), now())
        return cls({f"k{first}": data_key}, f"k{first}", os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))

    def with_new_data_key(self) -> Keyring:
        """Return one whose active data key is a new one; all others stay."""
        number = 1 + max(int(name.removeprefix("k")) for name in self.data_keys)
        return replace(
            self,
            data_keys=self.data_keys | {f"k{number}": DataKey(os.urandom(KEY_BYTES), now())},
            active=f"k{number}",
        )

    def wrapped(self, root_key: bytes) -> str:
        """Return the record as it is stored."""
        return _wrapping_cipher(root_key).encrypt(json.dumps(self._as_json()).encode()).decode()

    @classmethod
    def unwrapped(cls, record: str, root_key: bytes) -> Keyring:
        """Return the keyring of a stored record.

        Raises:
            WrongRootKey: another root key wrapped it, or it was changed.
        """
        try:
            return cls._of_json(json.loads(_wrapping_cipher(root_key).decrypt(record)))
        except InvalidToken:
            raise WrongRootKey from None

    def _as_json(self) -> dict[str, Any]:
        return {
            "active": self.active,
            "index_key": _text(self.index_key),
            "audit_key": _text(self.audit_key),
            "data_keys": {
                name: {
                    "key": _text(one.key),
                    "created_at": one.created_at.isoformat(),
                    "retired_at": one.retired_at.isoformat() if one.retired_at else None,
                }
                for name, one in self.data_keys.items()
            },
        }

    @classmethod
    def _of_json(cls, values: dict[str, Any]) -> Keyring:
        data_keys = {
            name: DataKey(
                _bytes(one["key"]),
                datetime.fromisoformat(one["created_at"]),
                datetime.fromisoformat(one["retired_at"]) if one["retired_at"] else None,
            )
            for name, one in values["data_keys"].items()
        }
        return cls(data_keys, values["active"], _bytes(values["index_key"]), _bytes(values["audit_key"]))


def root_key_id(root_key: bytes) -> str:
    """Return the key-check value: it tells root keys apart and says nothing else of them. 16 hex digits."""
    return hmac.new(root_key, _CHECK, hashlib.sha256).hexdigest()[:16]


def _wrapping_cipher(root_key: bytes) -> Fernet:
    derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=_WRAPPING).derive(root_key)
    return Fernet(base64.urlsafe_b64encode(derived))


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)
