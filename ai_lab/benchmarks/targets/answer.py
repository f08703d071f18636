"""What an answer is made of while it comes, and what its record says in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ai_lab.benchmarks.records import Record, Status
from ai_lab.errors import LabError, ProviderError

_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
#: Figures of servers above these are none; JSON can spell any number, and Python takes 1e999 for infinity.
_MOST, _MOST_COUNTED = 1e18, 2**31 - 1


class AnswerLog:
    """Gather the chunks of one answer and close its record.

    Attributes:
        is_whole: the server said that this is all.
        completion_tokens: as the server counts them, None where it does not.
        error: why it failed, None where it did not.
    """

    def __init__(self, record: Record, *, wanted_tokens: int | None, most_chunks: int) -> None:
        """Begin.

        Args:
            record: is written into.
            wanted_tokens: the length that makes an answer more than short, None if any is right.
            most_chunks: after which an answer is taken for one without end.
        """
        self.record = record
        self.is_whole = False
        self.completion_tokens: int | None = None
        self.error: LabError | None = None
        self._wanted_tokens = wanted_tokens
        self._most_chunks = most_chunks
        self._parts: list[str] = []
        self._counts_all_chunks = True
        self._is_closed = False

    def add(self, at_ns: int, text: str, *, is_reasoning: bool, tokens: int | None = None) -> None:
        """Take a chunk that is not empty; ``tokens`` are those in it, where the server says how many.

        Raises:
            ProviderError: there were far too many.
        """
        record = self.record
        if record.first_token_ns is None:
            record.first_token_ns = at_ns
        if record.first_answer_ns is None and not is_reasoning:
            record.first_answer_ns = at_ns
        record.chunk_ns.append(at_ns)
        self._parts.append(text)
        if tokens is None:
            self._counts_all_chunks = False
        else:
            record.chunk_tokens.append(tokens)
        if len(self._parts) > self._most_chunks:
            raise ProviderError(
                f"The server did not stop: {self._most_chunks} pieces of text came for an answer that was to be much "
                "shorter, so it was left. See whether it knows the option that limits the length of answers."
            )

    def note(self, text: str) -> None:
        """Keep an oddity, once."""
        text = whole_characters(text)
        if text not in self.record.notes:
            self.record.notes.append(text)

    def fail(self, status: Status, error: LabError | None, end_ns: int) -> None:
        """Close the record with what went wrong; what had come stays in it, and a whole answer stays whole."""
        if self._is_closed:
            return
        record = self.record
        record.status = status
        if error:
            self.error, record.error, record.error_code = error, whole_characters(error.detail), error.code
        self._close(end_ns)

    def end(self, end_ns: int) -> None:
        """Close the record of an answer that is whole."""
        record = self.record
        self._close(end_ns)
        chunks = len(record.chunk_ns)
        if not chunks:
            record.status, record.error_code = "error", "provider_error"
            record.error = "The server said that it had answered, but sent no text."
            self.note("no text")
            return
        if self.completion_tokens is None:
            self.note("no usage")
            # Without a count only the server's own word tells whether it came to the length that it was asked for.
            is_short = record.finish_reason != "length" and chunks < (self._wanted_tokens or 0)
        else:
            # A count below that of chunks with text cannot be right.
            is_short = max(self.completion_tokens, chunks) < (self._wanted_tokens or 0)
        record.status = "short" if is_short else "ok"

    def _close(self, end_ns: int) -> None:
        record, self._is_closed = self.record, True
        record.end_ns = end_ns
        chunks = len(record.chunk_ns)
        if chunks:
            record.last_token_ns = record.chunk_ns[-1]
        if not self._counts_all_chunks:
            del record.chunk_tokens[:]
        if self.completion_tokens is not None:
            record.completion_tokens, record.token_source = self.completion_tokens, "server"
            if self.completion_tokens < chunks:
                self.note("usage disagrees with chunks")
        elif chunks:
            record.completion_tokens, record.token_source = chunks, "chunks"
        text = "".join(self._parts)
        self._parts.clear()
        try:
            encoded = text.encode()
        except UnicodeEncodeError:  # halves of surrogate pairs, which JSON can spell: those that belong together join
            text = whole_characters(text)
            encoded = text.encode()
            if _HALF_CHARACTER in text:
                self.note("half a character in the answer")
        record.output_characters = len(text)
        record.output_sha256 = hashlib.sha256(encoded).hexdigest() if chunks else None


def whole_characters(text: str) -> str:
    """Return a text that every encoding can hold: halves of surrogate pairs are joined, and lone ones replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def part(values: Any, name: str) -> Mapping[str, Any]:
    """Return an object within a server's answer, or an empty one where there is none."""
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, dict) else {}


def number(values: Any, name: str) -> int | float | None:
    """Return a figure of a server's answer, or None where it is missing or is no finite number."""
    value = values.get(name) if isinstance(values, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _MOST else None


def count(values: Any, name: str) -> int | None:
    """Return a count of a server's answer, or None where it is missing or is no count."""
    value = number(values, name)
    return value if isinstance(value, int) and 0 <= value <= _MOST_COUNTED else None
