"""A text file read piece by piece: encoding by byte order mark, else UTF-8, and the exact byte where it is broken."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ai_lab.errors import SourceDamaged

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

#: Told how many more bytes of a source were read.
Watcher = Callable[[int], None]


def ignore_bytes(_count: int) -> None:
    """Watch nothing."""


def open_source(path: Path) -> BinaryIO:
    """Open a source for reading; raises ``SourceDamaged`` where that is impossible."""
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceDamaged(f"cannot be read ({error.strerror})", origin=str(path)) from error


def encoding_of(start: bytes) -> tuple[str, int]:
    """Return the encoding that the first bytes name and the length of that mark."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


class TextFile:
    """Text of one file, in order. A broken byte is raised only after the good text before it was handed out."""

    def __init__(self, path: Path, watcher: Watcher) -> None:
        self._origin = str(path)
        self._watcher = watcher
        self._file = open_source(path)
        try:
            start = self._raw(4)
        except SourceDamaged:
            self.close()
            raise
        self._encoding, skip = encoding_of(start)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._offset_bytes = skip  # of the first byte that the decoder has not been given yet
        self._pending = start[skip:]
        self._broken: SourceDamaged | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size_bytes: int) -> str:
        """Return about ``size_bytes`` of text, empty only at the end; raises ``SourceDamaged`` at a broken byte."""
        if self._broken:
            raise self._broken
        text = ""
        while not text:
            data = self._pending + self._raw(size_bytes)
            self._pending = b""
            held = len(self._decoder.getstate()[0])
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                self._broken = self._not_text(error, self._offset_bytes - held)
                text = error.object[: error.start].decode(self._encoding)
                if not text:
                    raise self._broken from None
            self._offset_bytes += len(data)
            if not data:
                return text
        return text

    def _raw(self, size_bytes: int) -> bytes:
        try:
            data = self._file.read(size_bytes)
        except OSError as error:
            raise SourceDamaged(f"cannot be read ({error.strerror})", origin=self._origin) from error
        self._watcher(len(data))
        return data

    def _not_text(self, error: UnicodeDecodeError, start: int) -> SourceDamaged:
        return not_text(self._encoding, error, self._origin, start)


def not_text(encoding: str, error: UnicodeDecodeError, origin: str, start: int, **place: int) -> SourceDamaged:
    """Return where the bytes stop being text; ``start`` is the byte at which the decoded piece begins."""
    byte = error.object[error.start] if error.start < len(error.object) else 0
    return SourceDamaged(
        f"not {encoding.upper()} text (byte 0x{byte:02x}: {error.reason}). Save the file as UTF-8 and import it again",
        origin=origin,
        position={**place, "byte": start + error.start},
    )
