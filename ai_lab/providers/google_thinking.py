"""How Gemini models are asked to think: those before 3 with a number of tokens, later ones with a level."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ai_lab.providers.reasoning_effort import EFFORTS, THINKING_TOKENS, changed, effort_of, ignored, nearest
from ai_lab.providers.types import ChatRequest

_WANTS_A_NUMBER = re.compile(r"gemini-2\.5")
_ALWAYS_THINKS = re.compile(r"gemini-2\.5-pro")
_LEVELS = ("minimal", "low", "medium", "high")
_REFUSAL_TEXT = re.compile(r"thinking[ _]?(level|budget|mode|config)", re.IGNORECASE)


def is_about_thinking(text: str) -> bool:
    """Return whether a refusal says that the model cannot be asked to think in this way."""
    return bool(_REFUSAL_TEXT.search(text))


def taken_effort(request: ChatRequest, refused: Collection[str]) -> str | None:
    """Return the effort that is sent; None where there is none, or the model takes none.

    Args:
        request: what is asked.
        refused: efforts that the model was found to refuse. Which takes which is in no list.

    Raises:
        InvalidRequest: there is no such effort.
    """
    effort = effort_of(request)
    if effort is None:
        return None
    if not _WANTS_A_NUMBER.match(request.model):
        return nearest(effort, set(_LEVELS) - set(refused))
    return nearest(effort, set(EFFORTS[1:] if _ALWAYS_THINKS.match(request.model) else EFFORTS) - set(refused))


def thinking_config(
    name: str, request: ChatRequest, *, thinks: bool, refused: Collection[str]
) -> tuple[dict[str, Any], str | None]:
    """Return what the request says about thinking, and a warning where that is not what was asked for.

    Args:
        name: the provider's name, for texts.
        request: what is asked.
        thinks: the model thinks before it answers, and can be asked to show it.
        refused: see ``taken_effort``.

    Raises:
        InvalidRequest: there is no such effort.
    """
    effort = effort_of(request)
    if not thinks:
        return {}, None if effort in {None, "none"} else ignored(name, request.model)
    shown = {"includeThoughts": True}
    if effort is None:
        return shown, None
    taken = taken_effort(request, refused)
    if taken is None:
        return shown, ignored(name, request.model)
    warning = None if taken == effort else changed(name, request.model, taken)
    if not _WANTS_A_NUMBER.match(request.model):
        return {**shown, "thinkingLevel": taken.upper()}, warning
    if taken == "none":
        return {"thinkingBudget": 0}, warning
    return {**shown, "thinkingBudget": THINKING_TOKENS[taken]}, warning
