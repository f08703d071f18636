"""How hard a model is asked to think: OpenAI's words, for services that count in other ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from ai_lab.errors import InvalidRequest
from ai_lab.providers.types import ChatRequest

OPTION = "reasoning_effort"
#: From the least to the most.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
#: For services that want a number. With 8,192 tokens for the answer they stay within the 32,000 that every Claude which
#: is told such a number writes.
THINKING_TOKENS: Mapping[str, int] = MappingProxyType(
    {"none": 0, "minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 23_808, "max": 23_808}
)


def effort_of(request: ChatRequest) -> str | None:
    """Return how hard the model is asked to think, None where nothing is said about it.

    Raises:
        InvalidRequest: it is none of ``EFFORTS``.
    """
    effort = request.options.get(OPTION)
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequest(f"{OPTION} must be one of {', '.join(EFFORTS)}.", param=OPTION)
    return effort


def nearest(effort: str, taken: Collection[str]) -> str | None:
    """Return the greatest of ``taken`` that asks for no more than ``effort``, else the least; None: there is none."""
    asked = EFFORTS.index(effort)
    places = sorted(EFFORTS.index(each) for each in taken)
    return EFFORTS[max((place for place in places if place <= asked), default=places[0])] if places else None


def changed(name: str, model: str, effort: str) -> str:
    """Return the warning for an effort that is sent in place of the one that was asked for."""
    return f"option {OPTION!r} was set to {effort!r}, the nearest that {name}'s {model} takes"


def ignored(name: str, model: str) -> str:
    """Return the warning for a model that does not think, or cannot be told how hard."""
    return f"option {OPTION!r} is not supported by {name}'s {model} and was ignored"
