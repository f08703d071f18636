"""Text to token numbers as BERT's uncased models read it: basic tokens, then the longest known pieces of each."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

_LONGEST_WORD = 100
_CLS, _SEP, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
#: First and last code points of the blocks whose characters BERT takes for words of their own.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
#: Control, format, private use and surrogates; what Unicode has not assigned is kept.
_CONTROL = frozenset({"Cc", "Cf", "Co", "Cs"})


class WordPiece:
    """The tokenizer of one model (Devlin et al. 2018, "BERT"); ``[CLS]`` in a text is text.

    Args:
        vocabulary: every piece, at the place of its number; pieces that go on a word begin with ``##``.
        most_tokens: how many numbers a text becomes at most, both marks included; the rest of it is left out.
    """

    def __init__(self, vocabulary: Sequence[str], *, most_tokens: int) -> None:
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self._longest_piece = max(map(len, vocabulary))
        self._most_pieces = most_tokens - 2

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text between those of ``[CLS]`` and ``[SEP]``."""
        numbers: list[int] = [self._numbers[_CLS]]
        for word in _words(text):
            numbers += self._pieces(word)
            if len(numbers) > self._most_pieces:
                break
        return [*numbers[: self._most_pieces + 1], self._numbers[_SEP]]

    def _pieces(self, word: str) -> list[int]:
        """Cut a word into the longest pieces from its beginning; a rest that is no piece makes the whole unknown."""
        unknown = [self._numbers[_UNKNOWN]]
        if len(word) > _LONGEST_WORD:
            return unknown
        found: list[int] = []
        begin, mark = 0, ""
        while begin < len(word):
            for end in range(min(len(word), begin + self._longest_piece), begin, -1):
                number = self._numbers.get(mark + word[begin:end])
                if number is not None:
                    break
            else:
                return unknown
            found.append(number)
            begin, mark = end, "##"
        return found


def _words(text: str) -> Iterator[str]:
    """Yield lower-case words without accents; punctuation and ideographs are words of one character."""
    clean = "".join(map(_cleaned, text))
    bare = (letter for letter in unicodedata.normalize("NFD", clean) if unicodedata.category(letter) != "Mn")
    for run in "".join(letter.lower() for letter in bare).split():
        begin = 0
        for at, letter in enumerate(run):
            if _is_punctuation(letter):
                if at > begin:
                    yield run[begin:at]
                yield letter
                begin = at + 1
        if begin < len(run):
            yield run[begin:]


def _cleaned(letter: str) -> str:
    if letter.isascii() and letter.isprintable():
        return letter
    if letter in "\t\n\r":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter) in _CONTROL:
        return ""
    code = ord(letter)
    return f" {letter} " if any(first <= code <= last for first, last in _IDEOGRAPHS) else letter


def _is_punctuation(letter: str) -> bool:
    if letter.isascii():
        return not letter.isalnum() and letter.isprintable() and letter != " "
    return unicodedata.category(letter).startswith("P")
