from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_lab.providers.thinking import split_thinking
from ai_lab.providers.types import Chunk, Usage

LAST = Chunk(finish_reason="stop", usage=Usage(prompt_tokens=1))


async def source(chunks: Sequence[Chunk], closed: list[bool] | None = None) -> AsyncGenerator[Chunk, None]:
    try:
        for chunk in chunks:
            yield chunk
    finally:
        if closed is not None:
            closed.append(True)


async def split(*pieces: str) -> list[Chunk]:
    chunks = [*(Chunk(text=piece) for piece in pieces), LAST]
    return [chunk async for chunk in split_thinking(source(chunks))]


def joined(chunks: Sequence[Chunk]) -> tuple[str, str]:
    return "".join(chunk.reasoning for chunk in chunks), "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>Hm.</think>Yes.", "Hm.", "Yes."),
        (" \n<think>\nHm.\n</think>\n\nYes. ", "Hm.", "Yes. "),
        ("<thinking>a </think> b</thinking>c", "a </think> b", "c"),
        ("<reasoning>a</reasoning>", "a", ""),
        ("<think></think>Yes.", "", "Yes."),
        ("<think>never ends </thi", "never ends </thi", ""),
        ("<think>a</think><think>b</think>", "a", "<think>b</think>"),
        ("Models write <think>a</think>.", "", "Models write <think>a</think>."),
        ("  no tag", "", "  no tag"),
        ("<thin ice", "", "<thin ice"),
        ("<thi", "", "<thi"),
        (" \n", "", " \n"),
        ("", "", ""),
    ],
)
async def test_thinking_at_the_beginning_is_moved(text: str, reasoning: str, answer: str) -> None:
    assert joined(await split(text)) == (reasoning, answer)
    assert joined(await split(*text)) == (reasoning, answer)


async def test_nothing_is_said_while_all_is_held_back() -> None:
    arrived = [Chunk(text="<th", pieces=3), Chunk(text="ink>Hm", pieces=2), LAST]
    assert [chunk async for chunk in split_thinking(source(arrived))] == [Chunk(reasoning="Hm", pieces=2), LAST]


WORDS = st.sampled_from(
    ["<think>", "</think>", "<thinking>", "</thinking>", "</thi", "<", ">", " ", "\n", "a", "ä", "b"]
)


@given(st.lists(WORDS, max_size=12).map("".join), st.data())
@example("<think>a</think>b", None)
async def test_where_the_text_is_cut_changes_nothing(text: str, data: st.DataObject | None) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text))))) if data else range(len(text))
    edges = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]

    chunks = await split(*pieces)

    assert joined(chunks) == joined(await split(text))
    assert chunks[-1].finish_reason == "stop"
    assert [chunk.finish_reason for chunk in chunks].count("stop") == 1
    if not text.lstrip().startswith(("<think>", "<thinking>", "<reasoning>")):
        assert joined(chunks) == ("", text)


async def test_chunks_pass_untouched_once_it_is_clear() -> None:
    chunks = [Chunk(text="Hi"), Chunk(text=""), Chunk(text="<think>x", timings={"a": 1.0}), LAST]

    passed = [chunk async for chunk in split_thinking(source(chunks))]

    assert all(before is after for before, after in zip(chunks, passed, strict=True))


async def test_thinking_streams_and_does_not_wait_for_its_end() -> None:
    chunks = await split("<think>", "one", " two", "</think>", "three", " four")

    assert [(chunk.reasoning, chunk.text) for chunk in chunks] == [
        ("one", ""),
        (" two", ""),
        ("", "three"),
        ("", " four"),
        ("", ""),
    ]


async def test_reasoning_tool_calls_and_the_last_chunk_are_kept() -> None:
    calls = [{"index": 0}]
    chunks = [Chunk(reasoning="native"), Chunk(tool_calls=calls), Chunk(text="<think>a", finish_reason="length")]

    passed = [chunk async for chunk in split_thinking(source(chunks))]

    assert passed == [
        Chunk(reasoning="native"),
        Chunk(tool_calls=calls),
        Chunk(reasoning="a", finish_reason="length"),
    ]


async def test_stream_without_a_last_chunk_loses_nothing() -> None:
    passed = [chunk async for chunk in split_thinking(source([Chunk(text="<thi")]))]

    assert passed == [Chunk(text="<thi")]


async def test_closing_closes_the_source() -> None:
    closed: list[bool] = []
    stream = split_thinking(source([Chunk(text="a"), Chunk(text="b")], closed))
    await anext(stream)

    await stream.aclose()

    assert closed == [True]
