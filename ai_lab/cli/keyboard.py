"""Single keys from the terminal, without Enter and without echo; it is given back as it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

try:
    import termios
    import tty
except ImportError:  # Windows: there Ctrl-C ends the program
    termios = tty = None  # type: ignore[assignment]


class Keyboard:
    """Calls ``on_keys`` in the running event loop with what was typed; None once nobody can type any more."""

    def __init__(self, on_keys: Callable[[bytes | None], None]) -> None:
        self._on_keys = on_keys
        self._saved: list[Any] | None = None

    def take(self) -> None:
        """Take the terminal; does nothing where there is none to type at."""
        if termios is None or not sys.stdin.isatty():
            return
        number = sys.stdin.fileno()
        self._saved = termios.tcgetattr(number)
        tty.setcbreak(number, termios.TCSADRAIN)
        asyncio.get_running_loop().add_reader(number, self._read)

    def give_back(self) -> None:
        """Give the terminal back as it was; does nothing where it was not taken."""
        if self._saved is None:
            return
        number = sys.stdin.fileno()
        asyncio.get_running_loop().remove_reader(number)
        with contextlib.suppress(termios.error):  # it was closed: nobody wants it back
            termios.tcsetattr(number, termios.TCSAFLUSH, self._saved)  # keys still unread are no input for the shell
        self._saved = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.give_back()

    def _read(self) -> None:
        try:
            keys = os.read(sys.stdin.fileno(), 1024)
        except OSError:  # the terminal was closed
            keys = b""
        self._on_keys(keys or None)
