"""Prompts as the calibrated server counts and caches them: a token is a word, and a template adds a fixed number."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

_KEPT_PER_FIRST_WORD = 64


@dataclass(frozen=True)
class Prompt:
    """What is asked: ``text`` as it was sent (of a chat: the last message), ``words`` of all messages."""

    text: str
    words: str
    has_template: bool


def prompt_of(path: str, body: dict[str, Any]) -> Prompt:
    """Return the prompt in a body of any of the APIs; templates are not for ``/v1/completions``."""
    if "messages" in body:
        texts = [_text(message.get("content")) for message in body["messages"]]
        return Prompt(texts[-1] if texts else "", " ".join(texts), has_template=True)
    text = _text(body.get("prompt"))
    return Prompt(text, text, has_template=path.startswith("/api/") and not body.get("raw"))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(_text(part.get("text") if isinstance(part, dict) else part) for part in content)
    return content if isinstance(content, str) else ""


class PrefixCache:
    """Earlier prompts; says how many tokens at the beginning of a new one some earlier one shares."""

    def __init__(self) -> None:
        self._by_first_word: dict[str, OrderedDict[str, None]] = {}

    def clear(self) -> None:
        """Forget all, as an unloaded model does."""
        self._by_first_word.clear()

    def take(self, words: str, *, head_tokens: int, tail_tokens: int) -> int:
        """Return the cached tokens of this prompt and remember it; at least one token is always evaluated anew."""
        split = words.split()
        if not split:
            return 0
        cached = head_tokens if self._by_first_word else 0
        earlier = self._by_first_word.setdefault(split[0], OrderedDict())
        if words in earlier:
            cached += len(split) + tail_tokens
        else:
            cached += max((_common(split, other.split()) for other in earlier), default=0)
        earlier[words] = None
        if len(earlier) > _KEPT_PER_FIRST_WORD:
            earlier.popitem(last=False)
        return min(cached, head_tokens + len(split) + tail_tokens - 1)


def _common(one: list[str], other: list[str]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
