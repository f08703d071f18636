"""Where the root key comes from: a file that is named, the environment, the system's keyring, or a file of our own.

A value is a Fernet key (44 characters) or 64 hex digits, which are the 32 bytes themselves, or ``passphrase:`` and at
least 12 characters, from which scrypt makes them (n = 2^17, r = 8, p = 1: 128 MiB, RFC 7914). Anything else is refused,
since a short text that is merely hashed can be guessed. All of this blocks: call it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ai_lab.settings import Settings
from ai_lab.vault.keyring import KEY_BYTES, root_key_id
from ai_lab.vault.root_key_file import make_folder, read_named_file, read_own_file, write_once
from ai_lab.vault.sealing import Sealed

Kind = Literal["named file", "environment", "keyring", "file"]

SALT_BYTES = 16
_PASSPHRASE = "passphrase:"  # noqa: S105 - the word before a passphrase
_PASSPHRASE_LENGTH = 12
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**17, 8, 1
_SCRYPT_MEMORY_BYTES = 256 * 1024 * 1024  # it needs 128 * n * r bytes, and a little
_FERNET = re.compile(r"[A-Za-z0-9_\-]{43}=")
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_DISTINCT_BYTES = 8  # random bytes have about 30 of them; 000…, or a pattern typed by hand, has fewer
_KEYRING_SERVICE = "ai-lab"
_OWN_FILES = "master*.key"
_FIRST_FILE = "master.key"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RootKey:
    """The key that opens the keyring. ``source`` says where it is from, for people; ``id`` tells it from others."""

    key: bytes = field(repr=False)
    kind: Kind
    source: str

    @property
    def id(self) -> str:
        """Return the key-check value under which the keyring's wrapping is stored."""
        return root_key_id(self.key)


def kind_of(settings: Settings) -> Kind:
    """Return where the root key is to come from; the first that is set."""
    if settings.encryption_key_file:
        return "named file"
    if settings.encryption_key:
        return "environment"
    return "keyring" if settings.keyring else "file"


def source_of(settings: Settings) -> str:
    """Return the same for people."""
    match kind_of(settings):
        case "named file":
            return f"ENCRYPTION_KEY_FILE ({_named_path(settings)})"
        case "environment":
            return "ENCRYPTION_KEY"
        case "keyring":
            return "the system's keyring"
        case _:
            return str(settings.config_path() / _OWN_FILES)


def find_root_key(settings: Settings, salt: bytes, wanted: Sequence[str]) -> RootKey:
    """Return the root key that opens the vault.

    Args:
        settings: name the source.
        salt: of a passphrase.
        wanted: ids of the root keys that open it, the preferred one first; empty before the first start, when any
            will do and one is made where the source is ours to write.

    Raises:
        Sealed: there is none, or it cannot be used.
    """
    kind, unusable = kind_of(settings), None
    if kind in ("named file", "environment"):
        found = [configured_root_key(settings, salt)]
    elif kind == "keyring":
        found = _keys_of_keyring(wanted)
    else:
        found, unusable = _keys_of_files(settings.config_path())
    by_id = {one.id: one for one in found}
    for root_id in wanted:
        if root_id in by_id:
            return by_id[root_id]
    if unusable:  # it may be the one that fits, and a new one beside it would only hide that
        raise unusable
    if wanted:
        raise _does_not_fit(settings, wanted, found)
    return found[0] if found else make_root_key(settings, is_first=True)


def configured_root_key(settings: Settings, salt: bytes) -> RootKey:
    """Return the root key of ENCRYPTION_KEY_FILE or ENCRYPTION_KEY, whether it fits or not.

    Raises:
        Sealed: it cannot be read, or is none.
    """
    source = source_of(settings)
    if settings.encryption_key_file:
        return RootKey(parse(read_named_file(_named_path(settings)), salt, source), "named file", source)
    if not settings.encryption_key:
        raise ValueError("the root key is configured nowhere")
    return RootKey(parse(settings.encryption_key.get_secret_value(), salt, source), "environment", source)


def previous_root_key(settings: Settings, salt: bytes) -> RootKey | None:
    """Return the root key of ENCRYPTION_KEY_PREVIOUS, if it is set; raises ``Sealed`` where it is none."""
    if not settings.encryption_key_previous:
        return None
    name = "ENCRYPTION_KEY_PREVIOUS"
    return RootKey(parse(settings.encryption_key_previous.get_secret_value(), salt, name), "environment", name)


def make_root_key(settings: Settings, *, is_first: bool = False) -> RootKey:
    """Make a new root key and keep it durably, in the system's keyring or in a new file; old ones stay.

    Args:
        settings: name the source.
        is_first: where another process has just made the first file, use that one.

    Raises:
        Sealed: it cannot be written there.
    """
    key = os.urandom(KEY_BYTES)
    text = base64.urlsafe_b64encode(key).decode()
    if kind_of(settings) == "keyring":
        _keep_in_keyring(root_key_id(key), text)
        return RootKey(key, "keyring", source_of(settings))
    folder = settings.config_path()
    make_folder(folder)
    path = folder / _FIRST_FILE
    if not write_once(path, text + "\n"):
        if is_first:
            return find_root_key(settings, b"", ())
        path = folder / f"master-{root_key_id(key)}.key"
        write_once(path, text + "\n")
    read_own_file(path)  # where modes mean nothing, or the folder is open to others, the next start would refuse it
    _log.info("a root key was made: without %s stored API keys cannot be read. Back it up apart from the data", path)
    return RootKey(key, "file", str(path))


def parse(text: str, salt: bytes, source: str) -> bytes:
    """Return the 32 bytes of a root key's text; line ends, spaces and quotes around it do not matter.

    Raises:
        Sealed: it is none; the text never repeats it.
    """
    value = text.strip("\ufeff \t\r\n")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip()
    if value.startswith(_PASSPHRASE):
        return _stretched(value.removeprefix(_PASSPHRASE), salt, source)
    key = b""
    try:
        if _HEX.fullmatch(value):
            key = bytes.fromhex(value)
        elif _FERNET.fullmatch(value):
            key = base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        pass
    if len(key) != KEY_BYTES:
        raise Sealed(
            f"{source} holds no root key.",
            "It must be a Fernet key (44 characters), 64 hex digits, or passphrase: and at least "
            f"{_PASSPHRASE_LENGTH} characters. `openssl rand -hex 32` prints a new one.",
        )
    if len(set(key)) < _DISTINCT_BYTES:
        raise Sealed(f"The root key of {source} is a pattern that can be guessed.", "Replace it by a random one.")
    return key


def _stretched(passphrase: str, salt: bytes, source: str) -> bytes:
    if len(passphrase) < _PASSPHRASE_LENGTH:
        raise Sealed(
            f"The passphrase of {source} is shorter than {_PASSPHRASE_LENGTH} characters.", "Use a longer one."
        )
    return hashlib.scrypt(
        passphrase.encode(errors="surrogateescape"),
        salt=salt,
        n=_SCRYPT_N,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        maxmem=_SCRYPT_MEMORY_BYTES,
        dklen=KEY_BYTES,
    )


def _named_path(settings: Settings) -> Path:
    return settings.absolute(settings.encryption_key_file or Path())


def _keys_of_files(folder: Path) -> tuple[list[RootKey], Sealed | None]:
    """Return the root keys of our own files, the first one first, then the newest; and what is wrong with others."""
    try:
        paths = sorted(
            folder.glob(_OWN_FILES), key=lambda path: (path.name != _FIRST_FILE, -path.lstat().st_mtime, path.name)
        )
    except OSError as error:
        raise Sealed(f"{folder} cannot be read ({error.strerror}).", "Check the folder's owner and mode.") from error
    found, unusable = [], None
    for path in paths:
        try:
            found.append(RootKey(parse(read_own_file(path), b"", str(path)), "file", str(path)))
        except Sealed as error:
            unusable = unusable or error
    return found, unusable


def _does_not_fit(settings: Settings, wanted: Sequence[str], found: Sequence[RootKey]) -> Sealed:
    kind, source, names = kind_of(settings), source_of(settings), " or ".join(wanted)
    reason = (
        f"The root key of {source} does not fit the stored keys." if found else f"There is no root key at {source}."
    )
    where = ""
    if kind == "file":
        where = (
            f" (a backup of it goes back to {settings.config_path()}, mode 600; where it came from ENCRYPTION_KEY, "
            "ENCRYPTION_KEY_FILE or AI_LAB_KEYRING, set that again)"
        )
    elif fitting := _fitting_file(settings, wanted):
        name = "AI_LAB_KEYRING" if kind == "keyring" else source.partition(" ")[0]
        move = "" if kind == "keyring" else ", or set ENCRYPTION_KEY_PREVIOUS to what it holds to move to the new one"
        return Sealed(reason, f"The root key that fits lies in {fitting}: unset {name} to use it{move}.")
    return Sealed(
        reason,
        f"Put back the root key {names} that the API keys were stored with{where}, and start AI Lab again. Where it is "
        "lost for good, `ai-lab vault reset` makes a new vault: all API keys must then be entered again.",
    )


def _fitting_file(settings: Settings, wanted: Sequence[str]) -> str | None:
    """Return which of our own files holds the root key, where settings name another source."""
    try:
        found, _ = _keys_of_files(settings.config_path())
    except Sealed:
        return None
    return next((one.source for one in found if one.id in wanted), None)


def _keys_of_keyring(wanted: Sequence[str]) -> list[RootKey]:
    keyring, failure = _system_keyring()
    found = []
    for root_id in wanted:
        try:
            text = keyring.get_password(_KEYRING_SERVICE, f"root-key-{root_id}")
        except failure as error:
            raise _keyring_unusable(error) from error
        if text:
            source = "the system's keyring"
            found.append(RootKey(parse(text, b"", source), "keyring", source))
    return found


def _keep_in_keyring(root_id: str, text: str) -> None:
    keyring, failure = _system_keyring()
    try:
        keyring.set_password(_KEYRING_SERVICE, f"root-key-{root_id}", text)
        is_kept = keyring.get_password(_KEYRING_SERVICE, f"root-key-{root_id}") == text
    except failure as error:
        raise _keyring_unusable(error) from error
    if not is_kept:
        raise _keyring_unusable(None)


def _system_keyring() -> tuple[Any, type[Exception]]:
    """Return the library and the error that it raises."""
    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to load
        from keyring.errors import KeyringError  # noqa: PLC0415 - as above
    except ImportError as error:
        raise Sealed(
            "AI_LAB_KEYRING is set, but the library for the system's keyring is missing.",
            "pip install 'ai-lab[keyring]', or unset AI_LAB_KEYRING to use a file.",
        ) from error
    return keyring, KeyringError


def _keyring_unusable(error: Exception | None) -> Sealed:
    reason = f" ({type(error).__name__})" if error else ""
    return Sealed(
        f"The system's keyring cannot be used{reason}.",
        "Unlock it; without a desktop session, as in a container, use ENCRYPTION_KEY_FILE instead.",
    )
