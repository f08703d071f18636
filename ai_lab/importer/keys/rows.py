"""What a reader finds: a key, or a row that cannot be read and why. Neither shows a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ai_lab.providers.known_services import known_services
from ai_lab.vault.cipher import Undecipherable
from ai_lab.vault.earlier_cipher import EarlierCipher, fernet_in

#: Far more than any key has, and far less than what would fill a terminal or the memory.
_LONGEST_KEY = 64 * 1024
_LONGEST_KEY_FILE_BYTES = 4096
_LONGEST_NAME = 64
_LONGEST_SHOWN = 60
_NOT_IN_NAME = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True)
class Found:
    """A key to bring in.

    Args:
        where: for people: the row, or the name in the file.
        source: labels the key where ``default`` is taken already.
        details: goes into the vault beside the key; JSON.
        remarks: what is to be said about the row.
    """

    where: str
    service_name: str
    secret: SecretStr
    source: str
    base_url: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A row that cannot come in; ``reason`` says why and what to do."""

    where: str
    reason: str


Row = Found | Unreadable


class NotReadable(Exception):
    """A stored key cannot be read; the text says why and what to do, and never holds what is stored."""


class Opener:
    """Decrypts what an earlier tool stored; without its key file every row says what is missing."""

    def __init__(self, key_file: Path) -> None:
        self._file = key_file
        self._cipher: EarlierCipher | None = None
        self._missing = ""
        try:
            with key_file.open("rb") as file:
                self._cipher = EarlierCipher(file.read(_LONGEST_KEY_FILE_BYTES).decode("ascii").strip())
        except FileNotFoundError:
            self._missing = f"its key file {key_file} is missing: name it with --key-file"
        except OSError as error:
            self._missing = f"its key file {key_file} cannot be read ({error.strerror})"
        except ValueError:
            self._missing = f"{key_file} holds no Fernet key (44 characters): name the right one with --key-file"

    def open(self, stored: Any, *, may_be_plain: bool) -> tuple[str, bool]:
        """Return the secret, and whether it was encrypted.

        Raises:
            NotReadable: it is missing, no text, or does not open.
        """
        if stored is None or stored == "":
            raise NotReadable("no key is stored in it")
        if not isinstance(stored, str) or len(stored) > _LONGEST_KEY:
            raise NotReadable("its key is no text" if not isinstance(stored, str) else "its key is far too long")
        if fernet_in(stored) is None:
            if may_be_plain:
                return stored.strip(), False
            raise NotReadable("its key is not encrypted as that tool does it: enter it by hand with ai-lab keys add")
        if self._cipher is None:
            raise NotReadable(self._missing)
        try:
            return self._cipher.open(stored), True
        except Undecipherable:
            raise NotReadable(
                f"its key was changed, or encrypted with another key than the one in {self._file}: name the right one "
                "with --key-file, or enter it by hand with ai-lab keys add"
            ) from None


def known_name(name: str) -> str | None:
    """Return our name of a service that a tool calls ``name``, such as "Hugging Face"; None for one unknown to us."""
    letters = _letters(name)
    for service in known_services().values():
        if letters in {_letters(spelling) for spelling in (service.name, service.title, *service.aliases)}:
            return service.name
    return None


def own_name(name: str) -> str | None:
    """Return a name for a service of the user's own; None where nothing is left of it."""
    return _NOT_IN_NAME.sub("-", name.lower()).strip("-_")[:_LONGEST_NAME] or None


def shown(value: Any) -> str:
    """Return a name out of a file for people: short, on one line, without what controls a terminal."""
    text = value if isinstance(value, str) else f"({type(value).__name__})"
    text = "".join(sign if sign.isprintable() else "?" for sign in text[: _LONGEST_SHOWN + 1])
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _letters(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())
