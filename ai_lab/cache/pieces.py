"""An answer's pieces, made into one that can be stored, and back into pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ai_lab.cache.schemas import StoredAnswer
from ai_lab.clock import now
from ai_lab.providers import Chunk
from ai_lab.providers.tool_calls import add_piece

#: Characters of a piece of a short answer; longer ones come in as many pieces, not in more.
_PIECE_CHARACTERS = 20
_MOST_PIECES = 500


def answer_of(provider: str, model: str, chunks: Iterable[Chunk]) -> StoredAnswer | None:
    """Return the answer that these pieces are.

    None where it must not be given again: it was cut or filtered, or it says nothing.
    """
    text: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    last: Chunk | None = None
    for chunk in chunks:
        if chunk.text:
            text.append(chunk.text)
        if chunk.reasoning:
            reasoning.append(chunk.reasoning)
        for part in chunk.tool_calls or ():
            add_piece(calls, part)
        if chunk.finish_reason:
            last = chunk
    said = "".join(text)
    if last is None or last.finish_reason not in ("stop", "tool_calls") or not (said.strip() or calls):
        return None
    return StoredAnswer(
        provider=provider,
        model=model,
        text=said,
        reasoning="".join(reasoning),
        tool_calls=tuple(calls[index] for index in sorted(calls)),
        finish_reason=last.finish_reason,
        usage=last.usage,
        warnings=last.warnings,
        created_at=now(),
    )


def pieces_of(answer: StoredAnswer) -> Iterator[Chunk]:
    """Yield the answer as a model would: in pieces that end between words, its thinking first."""
    for part in _split(answer.reasoning):
        yield Chunk(reasoning=part)
    for part in _split(answer.text):
        yield Chunk(text=part)
    if answer.tool_calls:
        yield Chunk(tool_calls=[dict(call) for call in answer.tool_calls])
    yield Chunk(finish_reason=answer.finish_reason, usage=answer.usage, warnings=answer.warnings)


def _split(text: str) -> list[str]:
    least = max(_PIECE_CHARACTERS, len(text) // _MOST_PIECES)
    return re.findall(rf".{{{least},{2 * least - 1}}}?\s|.{{1,{2 * least}}}", text, re.DOTALL)
