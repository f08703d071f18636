"""How Anthropic's models are asked to think: older ones with a number of tokens, newer ones with an effort."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ai_lab.providers.message_parts import chosen_tool
from ai_lab.providers.reasoning_effort import EFFORTS, OPTION, THINKING_TOKENS, changed, effort_of, ignored, nearest
from ai_lab.providers.types import ChatRequest

#: The API wants to be told how long an answer may get. Every model that is offered today writes at least this much.
DEFAULT_MAX_TOKENS = 8192
_LEAST_THINKING_TOKENS = 1024
_THOUGHTS = {"thinking", "redacted_thinking"}
_NEVER_THINKS = re.compile(r"claude-(2|instant|3-(?!7))")
_WANTS_A_NUMBER = re.compile(r"claude-(3-7|(opus|sonnet|haiku)-4(-[0-5])?(-\d{8})?$)|(?!claude-)")
#: A refusal that is about how the model is asked to think, not about thoughts in the conversation.
_REFUSAL_TEXT = re.compile(
    r"(?<![.\w])thinking\.(type|budget_tokens)|adaptive thinking|\beffort\b|support (extended )?thinking", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Mind:
    """How a model thinks.

    Attributes:
        kind: ``adaptive``: as much as it sees fit, by an effort; ``budget``: up to a number of tokens; ``none``: never.
        efforts: which ones it takes where it is adaptive.
    """

    kind: Literal["adaptive", "budget", "none"]
    efforts: frozenset[str] = frozenset({"low", "medium", "high"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says about thinking: fields of its body, and what the answer may need beyond its text.

    ``tokens`` is 0 where the model is not asked to think.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    warning: str | None = None


def usual_mind(model: str) -> Mind:
    """Return how a model thinks by its name, for the time before the list of models is known."""
    if _NEVER_THINKS.match(model):
        return Mind("none")
    return Mind("budget" if _WANTS_A_NUMBER.match(model) else "adaptive")


def listed_mind(capabilities: Any) -> Mind | None:
    """Return how a model thinks by what the list of models tells of it; None where it does not tell."""
    thinking = _object(capabilities, "thinking")
    if "supported" not in thinking:
        return None
    kinds, effort = _object(thinking, "types"), _object(capabilities, "effort")
    if not thinking["supported"]:
        return Mind("none")
    if not _object(kinds, "adaptive").get("supported"):
        return Mind("budget")
    efforts = frozenset(each for each in EFFORTS if _object(effort, each).get("supported"))
    return Mind("adaptive", efforts) if efforts else Mind("adaptive")


def is_about_thinking(text: str) -> bool:
    """Return whether a refusal says that the model cannot be asked to think in this way."""
    return bool(_REFUSAL_TEXT.search(text))


def asked_thinking(
    name: str, request: ChatRequest, mind: Mind | None, turns: Sequence[dict[str, Any]], most_tokens: int | None
) -> Asked:
    """Return what a request says about thinking.

    Args:
        name: the provider's name, for texts.
        request: what is asked.
        mind: how the model thinks; None: it was found to refuse this effort.
        turns: the conversation in the API's words.
        most_tokens: the longest answer that the model can write, None where that is not known.

    Raises:
        InvalidRequest: there is no such effort.
    """
    effort = effort_of(request)
    if effort is None:
        return Asked()
    if mind is None or (mind.kind == "none" and effort != "none"):
        return Asked(warning=ignored(name, request.model))
    if effort == "none":  # those that want a number do not think without one
        return Asked({"thinking": {"type": "disabled"}} if mind.kind == "adaptive" else {})
    tokens = THINKING_TOKENS[effort]
    limit = request.options.get("max_tokens") or DEFAULT_MAX_TOKENS + tokens
    limit = min(limit, most_tokens or limit)
    if why_not := _why_not(request, mind, turns, limit):
        return Asked(warning=f"option {OPTION!r} was ignored: {name}'s {request.model} does not think {why_not}")
    if mind.kind == "budget":  # a part of max_tokens; the rest is for the answer
        budget = min(tokens, max(_LEAST_THINKING_TOKENS, limit - min(DEFAULT_MAX_TOKENS, limit // 2)))
        return Asked({"thinking": {"type": "enabled", "budget_tokens": budget}}, tokens)
    taken = nearest(effort, mind.efforts) or effort
    # The newest models keep their thoughts to themselves where they are not asked for them.
    fields = {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": taken}}
    return Asked(fields, tokens, None if taken == effort else changed(name, request.model, taken))


def _why_not(request: ChatRequest, mind: Mind, turns: Sequence[dict[str, Any]], limit: int) -> str | None:
    """Return what in a request the API does not take together with thinking."""
    if request.tools and chosen_tool(request.tool_choice) not in {"auto", "none"}:
        return "where it must call a tool"
    if turns and turns[-1]["role"] == "assistant":
        return "in the middle of an answer that it continues"
    if mind.kind == "budget" and limit <= _LEAST_THINKING_TOKENS:
        return f"within a max_tokens of {_LEAST_THINKING_TOKENS} or less"
    if mind.kind == "budget" and _lacks_thoughts(turns):
        return "about results of tools whose calls came back without its thoughts (extra_content)"
    return None


def _lacks_thoughts(turns: Sequence[dict[str, Any]]) -> bool:
    """Return whether the last question is answered by calls of tools that do not begin with the model's thoughts."""
    last = len(turns)
    while last >= 2 and any(block["type"] == "tool_result" for block in turns[last - 1]["content"]):  # noqa: PLR2004 - a call and its result
        last -= 2
    return last < len(turns) and turns[last]["content"][0]["type"] not in _THOUGHTS


def _object(of: Any, name: str) -> dict[str, Any]:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, dict) else {}
