"""Files that hold a root key: who may read them, and how one is written so that it is there after a power cut."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

from ai_lab.vault.sealing import Sealed

_SIZE_LIMIT_BYTES = 4096
_READABLE_BY_OTHERS = 0o077
_WRITABLE_BY_OTHERS = 0o022
_WRITABLE = 0o222
#: Where Docker and systemd put secrets, readable by everybody inside of the container.
_SECRET_FOLDERS = ("/run/secrets", "/run/credentials")
_MODES_MEAN_SOMETHING = sys.platform != "win32"


def read_own_file(path: Path) -> str:
    """Return the text of a root-key file of ours, which nobody else may read or replace.

    Raises:
        Sealed: others may, or it cannot be read.
    """
    text, status = _read(path)
    if not _MODES_MEAN_SOMETHING:
        return text
    if status.st_uid not in (os.geteuid(), 0):
        raise Sealed(f"{path} belongs to another user.", f"See what it is, then: chown {os.geteuid()} '{path}'")
    if status.st_mode & _READABLE_BY_OTHERS:
        raise Sealed(f"{path} can be read by other users (mode {_octal(status)}).", f"Run: chmod 600 '{path}'")
    folder = path.parent.stat()
    if folder.st_mode & _WRITABLE_BY_OTHERS and not folder.st_mode & stat.S_ISVTX:
        raise Sealed(f"Other users can replace files in {path.parent}.", f"Run: chmod 700 '{path.parent}'")
    return text


def read_named_file(path: Path) -> str:
    """Return the text of the file of ENCRYPTION_KEY_FILE.

    Docker and Kubernetes hand secrets over as files of root that everybody in the container may read: one in
    /run/secrets, or of root and not ours to change, is taken as it is.

    Raises:
        Sealed: it is missing, cannot be read, or other users may read it.
    """
    text, status = _read(path)
    if not _MODES_MEAN_SOMETHING or not status.st_mode & _READABLE_BY_OTHERS or _is_handed_over(path, status):
        return text
    raise Sealed(
        f"ENCRYPTION_KEY_FILE {path} can be read by other users (mode {_octal(status)}).",
        f"Run: chmod 600 '{path}' (Kubernetes: defaultMode: 0400). Only a file in /run/secrets, or one of root that "
        "the server cannot write, may be readable by others.",
    )


def make_folder(folder: Path) -> None:
    """Create the folder of root keys for its owner alone; raises ``Sealed`` where that fails."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_once(path: Path, text: str) -> bool:
    """Write a new file (mode 0600) that is there whole, or not at all; returns False where it exists already.

    Raises:
        Sealed: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, text.encode())
            os.fsync(file)
        finally:
            os.close(file)
        try:
            os.link(part, path)  # unlike a rename, it never replaces what is there
        except FileExistsError:
            return False
        finally:
            part.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    return True


def _read(path: Path) -> tuple[str, os.stat_result]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_SIZE_LIMIT_BYTES + 1)
            if not content.strip():
                raise Sealed(f"{path} is empty.", "Put the root key back, from your backup of it.")
            if len(content) > _SIZE_LIMIT_BYTES:
                raise Sealed(f"{path} is too long for a root key.", "Name the file with the root key.")
            return content.decode(), status
    except OSError as error:
        raise Sealed(f"{path} cannot be read ({error.strerror}).", "See that it is there and yours to read.") from error
    except UnicodeDecodeError:
        raise Sealed(f"{path} is no text.", "It must hold the root key as text.") from None


def _is_handed_over(path: Path, status: os.stat_result) -> bool:
    if str(path.resolve()).startswith(tuple(f"{folder}/" for folder in _SECRET_FOLDERS)):
        return True
    # The user root could write any file: there a file without any write permission is meant.
    writable = _WRITABLE if os.geteuid() == 0 else _WRITABLE_BY_OTHERS
    return status.st_uid == 0 and not status.st_mode & writable


def _sync_folder(folder: Path) -> None:
    """Make the new name durable too; Windows has no such thing."""
    if _MODES_MEAN_SOMETHING:
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _octal(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):03o}"


def _unwritable(path: Path, error: OSError) -> Sealed:
    return Sealed(
        f"No root key can be kept at {path} ({error.strerror}).",
        "Give your user the right to write there, set AI_LAB_CONFIG_DIR, or give the key by ENCRYPTION_KEY_FILE.",
    )
