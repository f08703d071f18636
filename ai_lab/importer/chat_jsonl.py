"""JSON Lines: a conversation on each line (``{"messages": […]}``), or a message on each line of one conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ai_lab.errors import SourceDamaged
from ai_lab.importer.json_stream import TOO_DEEP, in_words
from ai_lab.importer.openai_export import conversation
from ai_lab.importer.records import Records, Source, message_record
from ai_lab.importer.text_file import Watcher, encoding_of, ignore_bytes, not_text, open_source

_LINE_LIMIT_BYTES = 16 * 1024 * 1024
_DECODER = json.JSONDecoder(strict=False)


def jsonl_file(path: Path, watcher: Watcher) -> Iterator[Source | SourceDamaged]:
    """Yield the conversations of a file; a line that is damaged costs no other one that holds a conversation."""
    try:
        if _is_one_conversation(path):
            yield Source("messages", path.stem, str(path), lambda: _messages(path, watcher))
            return
        for number, item in _lines(path, watcher):
            if isinstance(item, SourceDamaged):
                yield item
                continue
            try:
                yield conversation(item, f"{path} line {number}", f"{path.stem}-{number}")
            except ValueError as error:
                yield SourceDamaged(str(error), origin=str(path), position={"line": number})
    except SourceDamaged as damage:
        yield damage


def _is_one_conversation(path: Path) -> bool:
    """Return whether the first line that can be read is a message."""
    readable = (item for _, item in _lines(path, ignore_bytes) if isinstance(item, dict))
    first = next(readable, {})
    return not first.keys() & {"messages", "mapping"} and bool(first.keys() & {"role", "content", "message"})


def _messages(path: Path, watcher: Watcher) -> Records:
    for number, item in _lines(path, watcher):
        if isinstance(item, SourceDamaged):
            raise item
        if not isinstance(item, dict):
            raise SourceDamaged("expected a message", origin=str(path), position={"line": number})
        try:
            yield message_record(item)
        except ValueError as error:
            raise SourceDamaged(str(error), origin=str(path), position={"line": number}) from None


def _lines(path: Path, watcher: Watcher) -> Iterator[tuple[int, Any]]:
    """Yield each line that is not blank: its number and its value, or what is wrong with it."""
    with open_source(path) as file, _told(path):
        encoding, mark_length = encoding_of(file.read(4))
        if encoding != "utf-8":
            raise SourceDamaged(f"is {encoding.upper()}; JSON Lines must be UTF-8", origin=str(path))
        file.seek(mark_length)
        start, number = mark_length, 0
        while line := file.readline(_LINE_LIMIT_BYTES):
            number += 1
            is_cut = len(line) == _LINE_LIMIT_BYTES and not line.endswith(b"\n")
            size = len(line) + (_skip_line(file) if is_cut else 0)
            watcher(size)
            if is_cut:
                reason = f"the line is longer than {_LINE_LIMIT_BYTES >> 20} MB"
                yield number, SourceDamaged(reason, origin=str(path), position={"line": number})
            elif not line.isspace():
                yield number, _value(line, str(path), number, start)
            start += size


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceDamaged(f"cannot be read ({error.strerror})", origin=str(path)) from error


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line and return how many bytes that were."""
    size = 0
    while more := file.readline(_LINE_LIMIT_BYTES):
        size += len(more)
        if more.endswith(b"\n"):
            break
    return size


def _value(line: bytes, origin: str, number: int, start: int) -> Any:
    try:
        return _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        return not_text("utf-8", error, origin, start, line=number)
    except RecursionError:
        return SourceDamaged(TOO_DEEP, origin=origin, position={"line": number})
    except json.JSONDecodeError as error:
        return SourceDamaged(in_words(error.msg), origin=origin, position={"line": number, "column": error.pos + 1})
    except ValueError as error:  # a whole number of more digits than Python reads
        return SourceDamaged(str(error), origin=origin, position={"line": number})
