"""What arrives together is one chunk, and nothing of it is lost or changes its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ai_lab.errors import StreamBroken
from ai_lab.providers.event_stream import joined
from ai_lab.providers.types import Chunk

CALL = Chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}])


def test_neighbours_of_one_kind_are_one_chunk() -> None:
    arrived = [Chunk(reasoning="H"), Chunk(reasoning="m"), Chunk(text="Y"), Chunk(text="e"), Chunk(text="s")]
    assert list(joined(iter(arrived))) == [Chunk(reasoning="Hm", pieces=2), Chunk(text="Yes", pieces=3)]


def test_other_kinds_stay_as_they_are_and_where_they_are() -> None:
    both = Chunk(text="a", reasoning="b")
    arrived = [Chunk(text="x"), both, Chunk(text="y"), CALL, CALL, Chunk(text="z")]
    assert list(joined(iter(arrived))) == arrived
    assert list(joined(iter(()))) == []


def test_what_came_before_an_error_is_there_before_it() -> None:
    def breaking() -> Iterator[Chunk]:
        yield Chunk(text="a")
        yield Chunk(text="b")
        raise StreamBroken("lost")

    chunks = joined(breaking())
    assert next(chunks) == Chunk(text="ab", pieces=2)
    with pytest.raises(StreamBroken):
        next(chunks)
