"""Thinking that a model writes into its text, moved to where it belongs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from ai_lab.providers.types import Chunk

_TAGS = {f"<{name}>": f"</{name}>" for name in ("think", "thinking", "reasoning")}


async def split_thinking(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """Yield ``chunks`` with a leading ``<think>…</think>`` taken out of ``text`` and put into ``reasoning``.

    Only a tag at the very beginning counts; one that the model merely mentions later is text. White space around the
    thinking goes with the tags. A block that never ends is thinking to its end. As soon as it is clear that there is
    none, chunks pass as they are; before that, only what may still become a tag is held back.
    """
    splitter = _Splitter()
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            if splitter.passes:
                yield chunk
                continue
            reasoning, text = splitter.feed(chunk.text) if chunk.text else ("", "")
            if chunk.finish_reason is not None:
                late_reasoning, late_text = splitter.end()
                reasoning, text = reasoning + late_reasoning, text + late_text
            changed = (
                chunk
                if text == chunk.text and not reasoning
                else replace(chunk, text=text, reasoning=chunk.reasoning + reasoning)
            )
            if changed != Chunk(pieces=chunk.pieces):
                yield changed
        reasoning, text = splitter.end()
        if reasoning or text:
            yield Chunk(text=text, reasoning=reasoning)


class _Splitter:
    """Where in the answer we are: before it, in the thinking, just after the thinking, or past all of that."""

    def __init__(self) -> None:
        self.passes = False
        self._held = ""
        self._closing_tag: str | None = None
        self._thought_begun = False
        self._after = False

    def feed(self, text: str) -> tuple[str, str]:
        """Return what of the text so far is now known to be thinking, and what to be answer."""
        self._held += text
        if self._after:
            return "", self._answer()
        if self._closing_tag is None:
            start = self._held.lstrip()
            opening = next((tag for tag in _TAGS if start.startswith(tag)), None)
            if opening is None:
                if any(tag.startswith(start) for tag in _TAGS):
                    return "", ""
                return self.end()
            self._closing_tag = _TAGS[opening]
            self._held = start[len(opening) :]
        return self._thinking(self._closing_tag)

    def end(self) -> tuple[str, str]:
        """Return what is still held, as there is nothing to wait for; from now on chunks pass."""
        held, self._held = self._held, ""
        self.passes = True
        if self._after:
            return "", ""
        return ("", held) if self._closing_tag is None else (held.rstrip(), "")

    def _thinking(self, closing_tag: str) -> tuple[str, str]:
        if not self._thought_begun:
            self._held = self._held.lstrip()
            self._thought_begun = bool(self._held)
        thought, tag, rest = self._held.partition(closing_tag)
        if tag:
            self._held, self._after = rest, True
            return thought.rstrip(), self._answer()
        ready = self._held[: _undecided_from(self._held, closing_tag)]
        self._held = self._held[len(ready) :]
        return ready, ""

    def _answer(self) -> str:
        text, self._held = self._held.lstrip(), ""
        self.passes = bool(text)
        return text


def _undecided_from(text: str, closing_tag: str) -> int:
    """Return where the end of ``text`` begins that may be the start of the closing tag, with the space before it."""
    begun = next((n for n in range(len(closing_tag) - 1, 0, -1) if text.endswith(closing_tag[:n])), 0)
    return len(text[: len(text) - begun].rstrip())
