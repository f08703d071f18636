"""What tools before this one encrypted with one Fernet key for everything; read by imports, never written."""

from __future__ import annotations

import base64
import binascii

from cryptography.fernet import Fernet, InvalidToken

from ai_lab.vault.cipher import Undecipherable

#: Version 0x80 and the first bytes of a time before the year 2106, in base64.
_BEGINNING = "gAAAAA"
#: A tool that could not decrypt a token encrypted the token again, with its next key.
_MOST_LAYERS = 3


class EarlierCipher:
    """Opens the tokens of one key.

    Args:
        key: 44 characters, as the tool wrote it to its key file.

    Raises:
        ValueError: it is no Fernet key.
    """

    def __init__(self, key: str) -> None:
        self._fernet = Fernet(key)

    def open(self, stored: str) -> str:
        """Return the secret.

        Raises:
            Undecipherable: the token was made with another key, was changed, or holds no text.
        """
        text = stored
        for _ in range(_MOST_LAYERS):
            token = fernet_in(text)
            if token is None:
                return text
            try:
                text = self._fernet.decrypt(token).decode()
            except (InvalidToken, UnicodeDecodeError):
                raise Undecipherable from None
        raise Undecipherable


def fernet_in(text: str) -> str | None:
    """Return the Fernet token that a text is, bare or in base64 once more; None where it is something else."""
    text = text.strip()
    if text.startswith(_BEGINNING):
        return text
    try:
        inner = base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return inner if inner.startswith(_BEGINNING) else None
