"""A file of log lines that is put aside when it is full and never takes a program down."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

logger = logging.getLogger(__name__)


class LogFile:
    """A stream for ``logging.StreamHandler``: whole lines, appended with one call each, for the owner's eyes.

    Another process may write to the same file and another program may put it aside: it is looked at before each line.

    Args:
        path: absolute; ``path.1`` is the youngest of the files put aside.
        max_bytes: a file that would become larger is put aside first.
        kept: so many are kept besides the newest.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, *, max_bytes: int, kept: int) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self._lost = 0
        self._is_cut = False  # the last line, in the middle
        self._file: int | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def write(self, text: str) -> None:
        """Append ``text``, a whole line. Where that fails it is counted as lost, which is told once and at the end."""
        line = (b"\n" if self._is_cut else b"") + text.encode(errors="backslashreplace")
        try:
            written = os.write(self._ready_for(len(line)), line)
            self._is_cut = written < len(line)
            if self._is_cut:
                raise OSError(f"only {written} of {len(line)} bytes")  # noqa: TRY301 - ends as the other ones do
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                reason = error.strerror or str(error)
                logger.warning("the log file cannot be written; entries are missing there", extra={"reason": reason})
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            logger.warning("the log file is written again", extra={"entries_lost": lost})

    def flush(self) -> None:
        """Do nothing: a line is with the system as soon as it is written."""

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        file = self._file = os.open(self._path, flags, 0o600)
        size = os.fstat(file).st_size
        if size and stat.S_ISREG(os.fstat(file).st_mode):
            os.lseek(file, size - 1, os.SEEK_SET)
            if os.read(file, 1) != b"\n":
                os.write(file, b"\n")  # a process was killed in mid-line
        return file

    def _ready_for(self, count: int) -> int:
        """Return the open file, which has room for so many bytes."""
        if self._file is not None and not self._is_still_there(self._file):
            self.close()
        file = self._open() if self._file is None else self._file
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_size and status.st_size + count > self._max_bytes:
            self.close()
            self._put_aside()
            file = self._open()
        return file

    def _is_still_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _put_aside(self) -> None:
        for number in range(self._kept, 0, -1):
            younger = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if younger.exists():
                younger.replace(self._path.with_name(f"{self._path.name}.{number}"))
