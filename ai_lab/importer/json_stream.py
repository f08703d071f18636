"""A JSON file read value by value in bounded memory, with line and column of what is wrong.

Python's own decoder reads each value from a window of the file; the window grows until the value fits or the limit is
reached. So NaN, surrogates and large numbers mean what they mean everywhere else in Python, at the speed of C.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ai_lab.errors import SourceDamaged
from ai_lab.importer.cleaning import DEPTH_LIMIT
from ai_lab.importer.text_file import TextFile, Watcher, ignore_bytes

#: The memory that the text of one value (a message; in a ChatGPT export a conversation) may need.
VALUE_LIMIT_BYTES = 32 * 1024 * 1024
_WINDOW_BYTES = 256 * 1024
_LARGEST_STEP_BYTES = 1024 * 1024  # more would fetch the next values too, whose emoji widen the whole window
_DECODER = json.JSONDecoder(strict=False)  # a raw tab or line break within a text is no reason to lose it
_SPACE = re.compile(r"[ \t\n\r]*")
_LONGEST_TOKEN = 32  # an error this close to the window's end may only mean that the rest is not there yet
_NUMBER_TAIL = 3  # of 1e+5 the decoder takes the 1 alone until it sees the rest
TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels"


class JsonFile:
    """One JSON file, walked from its start to its end."""

    def __init__(self, path: Path, watcher: Watcher = ignore_bytes, window_bytes: int = _WINDOW_BYTES) -> None:
        self._window_bytes = window_bytes
        self._origin = str(path)
        self._text = TextFile(path, watcher)
        self._window = ""
        self._at = self._value_at = 0
        self._is_whole = False  # nothing of the file is left to read
        self._line, self._column = 1, 1  # of the window's first character

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()

    def peek(self) -> str:
        """Return the next character that is not white space, empty at the end."""
        while True:
            self._at = _SPACE.match(self._window, self._at).end()  # type: ignore[union-attr]  # it matches anything
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._grow():
                return ""

    def value(self) -> Any:
        """Return the next whole value."""
        self.peek()
        while True:
            fault, reason = self._at, ""
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except RecursionError:
                raise self.damaged(TOO_DEEP) from None
            except json.JSONDecodeError as error:
                fault, reason = error.pos, error.msg  # the error itself would keep the window in memory
            except ValueError as error:  # a whole number of more digits than Python reads
                raise self.damaged(str(error)) from None
            else:
                if end <= len(self._window) - _NUMBER_TAIL or not self._grow():
                    self._value_at, self._at = self._at, end
                    return value
                continue
            self._read_on_or_refuse(fault, reason)

    def items(self) -> Iterator[Any]:
        """Yield the values of the list that starts here."""
        yield from (self.value() for _ in self._places("[", "]"))

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that starts here; the caller takes the value after each."""
        for _ in self._places("{", "}"):
            key = self.value() if self.peek() == '"' else None
            if not isinstance(key, str):
                raise self.damaged("expected a name in double quotes")
            self._take(":")
            yield key

    def end(self) -> None:
        """See that nothing but white space follows."""
        if self.peek():
            raise self.damaged("more text follows after the end of the JSON")

    def damaged(self, reason: str, position: dict[str, int] | None = None) -> SourceDamaged:
        """Return the error for something wrong at ``position``, by default here."""
        return SourceDamaged(reason, origin=self._origin, position=position or self._position_of(self._at))

    def damaged_value(self, reason: str) -> SourceDamaged:
        """Return the error for something wrong with the value that was read last."""
        return self.damaged(reason, self._position_of(self._value_at))

    def _places(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self.peek() == closing:
            self._take(closing)
            return
        while True:
            yield
            if self.peek() == closing:
                self._take(closing)
                return
            self._take(",", f"',' or '{closing}'")

    def _take(self, character: str, expected: str = "") -> None:
        found = self.peek()
        if found != character:
            raise self._ended() if not found else self.damaged(f"expected {expected or repr(character)}")
        self._at += 1

    def _read_on_or_refuse(self, fault: int, reason: str) -> None:
        """Decide whether the decoder failed at an error in the file or at the end of the window."""
        is_open_text = reason.startswith("Unterminated string")
        if not is_open_text and fault < len(self._window) - _LONGEST_TOKEN:
            raise self.damaged(in_words(reason), self._position_of(fault))
        if self._grow():
            return
        if is_open_text or not self._window[fault:].strip():
            raise self._ended()
        raise self.damaged(in_words(reason), self._position_of(fault))

    def _ended(self) -> SourceDamaged:
        position = self._position_of(len(self._window))
        return self.damaged(
            "the file ends in the middle of its JSON" if self._window else "the file is empty", position
        )

    def _grow(self) -> bool:
        """Read more, forgetting what was consumed; returns False at the end of the file."""
        if self._is_whole:
            return False
        rest, start = self._window[self._at :], self._position_of(self._at)
        room = max(1, VALUE_LIMIT_BYTES // _width(rest) - len(rest))
        more = self._text.read(min(room, max(self._window_bytes, min(len(rest), _LARGEST_STEP_BYTES))))
        if not more:
            self._is_whole = True
            return False
        if max(_width(rest), _width(more)) * (len(rest) + len(more)) > VALUE_LIMIT_BYTES:
            raise self.damaged(
                f"a value that starts here takes more than {VALUE_LIMIT_BYTES >> 20} MB of memory", start
            )
        self._line, self._column = start["line"], start["column"]
        self._window, self._at = rest + more, 0
        return True

    def _position_of(self, at: int) -> dict[str, int]:
        breaks = self._window.count("\n", 0, at)
        if not breaks:
            return {"line": self._line, "column": self._column + at}
        return {"line": self._line + breaks, "column": at - self._window.rfind("\n", 0, at)}


def _width(text: str) -> int:
    """Return how many bytes Python takes for each character of ``text``: one emoji makes it four for all."""
    return min(4, max(1, (sys.getsizeof(text) - 40) // max(1, len(text))))


def in_words(reason: str) -> str:
    """Return the decoder's text in the style of ours."""
    return reason[:1].lower() + reason[1:]
