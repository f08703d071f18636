"""A stored answer comes back as it was, in pieces."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_lab.cache.pieces import answer_of, pieces_of
from ai_lab.cache.schemas import StoredAnswer
from ai_lab.providers import Chunk, Usage
from tests.cache.answers import answer


def _made(*chunks: Chunk) -> StoredAnswer:
    made = answer_of("fake", "tiny", chunks)
    assert made
    return made


@given(text=st.text(min_size=1).filter(str.strip), reasoning=st.text())
@settings(max_examples=100, deadline=None)
def test_text_comes_back_letter_by_letter(text: str, reasoning: str) -> None:
    pieces = list(pieces_of(answer(text, reasoning=reasoning)))
    assert "".join(piece.text for piece in pieces) == text
    assert "".join(piece.reasoning for piece in pieces) == reasoning
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert all(len(piece.text) <= 40 for piece in pieces)


def test_pieces_end_between_words_and_thinking_comes_first() -> None:
    text = "The quick brown fox jumps over the lazy dog, and then it sleeps for the rest of the day."
    *pieces, last = pieces_of(answer(text, reasoning="Hm, a fox.", warnings=("seed is not supported",)))
    assert [bool(piece.reasoning) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert all(piece.text.endswith(" ") for piece in pieces[1:-1])
    assert last == Chunk(finish_reason="stop", usage=Usage(7, 3), warnings=("seed is not supported",))


def test_a_long_answer_has_no_more_than_some_hundred_pieces() -> None:
    text = "word " * 100_000
    pieces = list(pieces_of(answer(text)))
    assert "".join(piece.text for piece in pieces) == text
    assert len(pieces) < 600


def test_tool_calls_are_put_together() -> None:
    made = _made(
        Chunk(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": ""}}]),
        Chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"n"'}}]),
        Chunk(tool_calls=[{"index": 1, "id": "b", "function": {"name": "go", "arguments": "{}"}, "extra": {"s": 1}}]),
        Chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        Chunk(finish_reason="tool_calls"),
    )
    calls, last = pieces_of(made)
    assert calls.tool_calls == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": '{"n":1}'}},
        {"index": 1, "id": "b", "function": {"name": "go", "arguments": "{}"}, "extra": {"s": 1}},
    ]
    assert last.finish_reason == "tool_calls"


def test_what_is_not_whole_is_no_answer() -> None:
    text = Chunk(text="Half an ans")
    assert answer_of("fake", "tiny", [text]) is None
    assert answer_of("fake", "tiny", [text, Chunk(finish_reason="length")]) is None
    assert answer_of("fake", "tiny", [text, Chunk(finish_reason="content_filter")]) is None
    assert answer_of("fake", "tiny", [Chunk(reasoning="Only thought."), Chunk(finish_reason="stop")]) is None
    assert answer_of("fake", "tiny", [Chunk(text=" \n"), Chunk(finish_reason="stop")]) is None
    assert answer_of("fake", "tiny", [Chunk(vectors=[[1.0]], finish_reason="stop")]) is None
