"""Prompts and answers in the form in which traces keep them: bounded, and whole again for a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_lab.providers import ChatRequest, Message
from ai_lab.traces.trace import without_texts

#: Of a prompt, and of an answer.
MOST_CHARACTERS = 100_000
_AROUND_MESSAGE_CHARACTERS = 50
_CUT = "… [cut]"


def prompt_of(request: ChatRequest) -> dict[str, Any]:
    """Return a request as plain JSON.

    ``is_whole`` is False where it had to be cut: the newest messages are kept, the last of them shortened. Images are
    left out, which makes it not whole either.
    """
    room = MOST_CHARACTERS
    messages: list[dict[str, Any]] = []
    is_whole = True
    for message in reversed(request.messages):
        kept = _message(message)
        length = _length(message)
        if message.has_images():
            is_whole = False
        if length > room:
            is_whole = False
            if not messages:
                messages.append(kept | {"content": shortened(message.text()), "tool_calls": None})
            break
        room -= length
        messages.append(kept)
    prompt = {"messages": messages[::-1], "is_whole": is_whole}
    tools = {"tools": request.tools, "tool_choice": request.tool_choice, "response_format": request.response_format}
    given = {name: value for name, value in tools.items() if value is not None}
    if len(str(given)) > room:
        return prompt | {"is_whole": False}
    return prompt | given


def embedded_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Return texts to embed as plain JSON, as many as there is room for."""
    room = MOST_CHARACTERS
    kept: list[str] = []
    for text in texts:
        if len(text) > room:
            break
        room -= len(text)
        kept.append(text)
    return {"texts": kept, "is_whole": len(kept) == len(texts)}


def request_of(prompt: dict[str, Any], model: str, options: dict[str, Any]) -> ChatRequest:
    """Return the request that ``prompt_of`` was made of, for another model."""
    return ChatRequest(
        model,
        [Message(**message) for message in prompt["messages"]],
        options,
        tools=prompt.get("tools"),
        tool_choice=prompt.get("tool_choice"),
        response_format=prompt.get("response_format"),
    )


def options_of(request: ChatRequest | None, *, keeps_texts: bool) -> dict[str, Any]:
    """Return the sampling options of a request; what may be text only where texts are kept."""
    if request is None:
        return {}
    return dict(request.options) if keeps_texts else without_texts(request.options)


def shortened(text: str) -> str:
    """Return text, cut where it is too long to be kept."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - len(_CUT)] + _CUT


def _message(message: Message) -> dict[str, Any]:
    content = message.content
    if not isinstance(content, str):
        content = [part for part in content if part.get("type") == "text"]
    kept = {"role": message.role, "content": content, "name": message.name}
    kept |= {"tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
    return {name: value for name, value in kept.items() if value is not None}


def _length(message: Message) -> int:
    called = len(str(message.tool_calls)) if message.tool_calls else 0
    return len(message.text()) + called + _AROUND_MESSAGE_CHARACTERS
