"""How one secret is encrypted: a Fernet key of its own, derived from a data key and from what the row is about.

    key   = HKDF-SHA256(data key, info = ["ai-lab/vault/v1", id, service, base origin, version])     (RFC 5869)
    token = "v1." data key number "." Fernet(key).encrypt(length, secret, padding to a multiple of 64 bytes)

A token that is moved to another row, an older version of the same row, or a row whose service or address was changed
does not decrypt: the key is another one. Fernet is AES-128-CBC with HMAC-SHA256; it shows when it was made, and its
length, which the padding makes coarse.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import json
import re
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ai_lab.providers.known_services import known_services

_FORMAT = "ai-lab/vault/v1"
_TOKEN = re.compile(r"v1\.(?P<data_key>[a-z0-9]{1,16})\.(?P<fernet>[A-Za-z0-9_\-]{1,20000}={0,2})")
_BUCKET_BYTES = 64
_LENGTH_BYTES = 2
_LONG_ENOUGH_FOR_A_HINT = 20
_SHOWN_END = 4


class Undecipherable(Exception):
    """The text is no token of this row: changed, moved, older than the row, or written in the open."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a secret is bound to."""

    id: str
    service_name: str
    base_origin: str
    version: int

    def derive(self, data_key: bytes) -> Fernet:
        """Return the cipher of this row."""
        context = json.dumps(
            [_FORMAT, self.id, self.service_name, self.base_origin, self.version],
            separators=(",", ":"),
            ensure_ascii=False,
        )
        derived = HKDF(SHA256(), 32, salt=None, info=context.encode()).derive(data_key)
        return Fernet(base64.urlsafe_b64encode(derived))


def encrypt(secret: str, place: Place, data_key_id: str, data_key: bytes) -> str:
    """Return the stored form of a secret of at most 65,535 bytes."""
    plain = secret.encode()
    framed = len(plain).to_bytes(_LENGTH_BYTES) + plain
    framed += bytes(-len(framed) % _BUCKET_BYTES)
    return f"v1.{data_key_id}.{place.derive(data_key).encrypt(framed).decode()}"


def decrypt(token: str, place: Place, data_key: bytes) -> str:
    """Return the secret.

    Raises:
        Undecipherable: the token is not the one that was stored in this row.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise Undecipherable
    fernet = match["fernet"]
    try:
        # The decoder overlooks what does not belong there: only the one spelling of these bytes is taken.
        if base64.urlsafe_b64encode(base64.urlsafe_b64decode(fernet)).decode() != fernet:
            raise Undecipherable
        framed = place.derive(data_key).decrypt(fernet)
    except (InvalidToken, binascii.Error, ValueError):
        raise Undecipherable from None
    length = int.from_bytes(framed[:_LENGTH_BYTES])
    return framed[_LENGTH_BYTES : _LENGTH_BYTES + length].decode()


def data_key_of(token: str) -> str | None:
    """Return the number of the data key that a token names; None where it is no token."""
    match = _TOKEN.fullmatch(token)
    return match["data_key"] if match else None


def fingerprint(secret: str, index_key: bytes) -> str:
    """Return what says that two secrets are the same, to those alone who have the index key: 32 hex digits."""
    return hmac.new(index_key, secret.encode(), hashlib.sha256).hexdigest()[:32]


def hint_of(secret: str) -> str:
    """Return what may be shown of a secret: its kind and its last four signs, or neither where it is short.

    The kind is a beginning that all keys of a known service share: with any other text it may be the secret itself.
    """
    if len(secret) < _LONG_ENOUGH_FOR_A_HINT:
        return "…"
    return f"{next(filter(secret.startswith, _kinds()), '')}…{secret[-_SHOWN_END:]}"


@functools.cache
def _kinds() -> list[str]:
    """Return the beginnings of known keys, the longest first; none of them says anything of a key's value."""
    services = known_services().values()
    found = {one for service in services for one in service.unique_prefixes}
    found |= {shape.prefix for service in services for shape in service.shapes if shape.prefix}
    return sorted(found, key=len, reverse=True)
