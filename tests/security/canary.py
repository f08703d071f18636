"""Secrets of tests carry a mark; this finds it in whatever a run has left behind, also as base64, hex or UTF-16."""

from __future__ import annotations

import base64
import contextlib
import mmap
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

_MARK = b"CANARY"
#: A secret has hex digits after the mark (``new_secret``); the word alone is in sources and in messages of tests.
_SECRET = re.compile(rb"CANARY[0-9a-f]{16}")
#: What tests write for the program to read (a ``.env``, files of an earlier tool) lies below a folder of this name.
INPUTS = "inputs"
#: Base64 of the mark at each of the three places that it can have within four letters, as far as it depends on
#: nothing around it.
_ENCODED = (
    base64.b64encode(_MARK),
    base64.b64encode(b"\0" + _MARK)[2:9],
    base64.b64encode(b"\0\0" + _MARK)[3:10],
    _MARK.hex().encode(),
    _MARK.hex().upper().encode(),
    _MARK.decode().encode("utf-16-le"),
)


def new_secret(prefix: str = "sk-") -> str:
    """Return a secret that nothing but this call has ever said."""
    return f"{prefix}CANARY{secrets.token_hex(16)}"


def holds_secret(data: bytes | mmap.mmap) -> bool:
    """Return whether a marked secret is in there, in the open or encoded."""
    return (data.find(_MARK) >= 0 and _SECRET.search(data) is not None) or any(
        data.find(form) >= 0 for form in _ENCODED
    )


def files_with_secrets(folder: Path) -> list[str]:
    """Return the files below ``folder`` that hold a secret, in their text or name; inputs of tests are left out."""
    return [str(path) for path in _files(folder) if holds_secret(os.fsencode(path.name)) or _is_hit(path)]


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        if INPUTS in folders:
            folders.remove(INPUTS)
        yield from (Path(at) / name for name in names)


def _is_hit(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        # A file that is mostly hole stands for a large one; looking through the hole would take minutes and all memory.
        is_hole = status.st_size > 1 << 30 and getattr(status, "st_blocks", 0) * 512 < status.st_size // 10
        if stat.S_ISREG(status.st_mode) and status.st_size and not is_hole:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return holds_secret(data)
    return False


def assert_none_left(folders: Iterable[Path]) -> None:
    """Raise an error that names the files in which a secret was found."""
    found = [path for folder in folders for path in files_with_secrets(folder)]
    assert not found, (
        f"secrets of the tests lie in the open in {found}. If a test wrote such a file for the program to read, "
        f"it belongs below a folder named {INPUTS!r}."
    )


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a run (with several workers: each its own part) whose files hold a secret of the tests in the open."""
    yield
    assert_none_left([tmp_path_factory.getbasetemp()])
