"""How services with OpenAI's API differ in the options that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ai_lab.providers.reasoning_effort import OPTION as EFFORT

_OPTIONS = {
    name: name
    for name in (
        *("temperature", "top_p", "seed", "max_tokens", "stop", "presence_penalty", "frequency_penalty"),
        EFFORT,
    )
}
_ONE_CALL = {"parallel_tool_calls": "parallel_tool_calls"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one service understands.

    Attributes:
        options: the service's names of the options that it takes, by our names.
        extra: what else goes into every request for an answer.
        is_strict: it refuses a tool call with fields that it does not know, such as those of other services.
        takes_cache_control: it knows the mark up to which a prompt is to be kept in its own cache.
        tells_cost: its ``usage.cost`` is what the call cost, in US dollars.
    """

    options: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    is_strict: bool = False
    takes_cache_control: bool = False
    tells_cost: bool = False


#: Any server: what the first version of the API had, and how hard to think, which most know or pass over.
PLAIN = Dialect(_OPTIONS)
#: llama.cpp and vLLM.
EXTENDED = Dialect(_OPTIONS | {name: name for name in ("top_k", "min_p", "repeat_penalty")})
#: OpenAI itself: models that reason refuse max_tokens, and all take the newer name.
OPENAI = Dialect(_OPTIONS | _ONE_CALL | {"max_tokens": "max_completion_tokens"}, is_strict=True)

_HOSTED = Dialect(_OPTIONS | {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"})
#: By the name of the service; as of 2026-11, from the services' API references.
DIALECTS: Mapping[str, Dialect] = {
    "openai": OPENAI,
    "azure": OPENAI,
    "openrouter": Dialect(
        {**_HOSTED.options, **_ONE_CALL},
        MappingProxyType({"usage": {"include": True}}),
        takes_cache_control=True,
        tells_cost=True,
    ),
    "together": _HOSTED,
    "huggingface": PLAIN,
}


def chosen(
    dialect: Dialect, options: Mapping[str, Any], refused: Mapping[str, str | None]
) -> tuple[dict[str, Any], list[str]]:
    """Return the options as they are sent, and the names of those that are not.

    Args:
        dialect: of the service.
        options: by our names; None counts as not given.
        refused: what a model was found to refuse, by the service's names: the name that it takes instead, or None.
            Of efforts to think each is refused on its own, see ``refused_name``.
    """
    sent: dict[str, Any] = {}
    ignored = []
    for name, value in options.items():
        if value is None:
            continue
        theirs = dialect.options.get(name)
        while theirs is not None and refused_name(theirs, value) in refused:
            theirs = refused[refused_name(theirs, value)]
        if theirs is None:
            ignored.append(name)
        else:
            sent[theirs] = value
    return sent, sorted(ignored)


def refused_name(theirs: str, value: Any) -> str:
    """Return under which name it is remembered that a model refuses an option, or one of its values."""
    return f"{theirs}={value}" if theirs == EFFORT else theirs
