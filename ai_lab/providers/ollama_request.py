"""A chat request in the words of Ollama's native API."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any

from ai_lab.errors import InvalidRequest, UnsupportedFeature
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.reasoning_effort import changed, effort_of, ignored, nearest
from ai_lab.providers.types import ChatRequest, Message

_OPTION_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "max_tokens": "num_predict",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
}
_BYTES_IN_A_TOKEN = 8
#: These know levels, and always think; all others only know whether to.
_KNOWS_LEVELS = re.compile(r"(.*/)?gpt-oss")
_LEVELS = ("low", "medium", "high")


def chat_body(name: str, request: ChatRequest, num_ctx: int, *, thinks: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the body for ``/api/chat``, and a warning for everything in the request that it has no word for.

    Args:
        name: the provider's name, for texts.
        request: what is asked.
        num_ctx: the context to ask for, in tokens.
        thinks: the model can think before it answers.

    Raises:
        InvalidRequest: an image or the arguments of a tool call cannot be read, or there is no such effort.
        UnsupportedFeature: a part of a message is neither text nor an image.
    """
    given = {option: value for option, value in request.options.items() if value is not None}
    options = {ollamas: given[ours] for ours, ollamas in _OPTION_NAMES.items() if ours in given}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(name, request.messages),
        "stream": True,
        "options": {**options, "num_ctx": num_ctx},
    }
    unsupported = [f"option {option!r}" for option in sorted(given.keys() - _OPTION_NAMES.keys() - {EFFORT})]
    if request.tools and request.tool_choice != "none":
        body["tools"] = request.tools
        if request.tool_choice not in (None, "auto"):
            unsupported.append("a tool_choice other than auto and none")
    if (answer_format := _format(request.response_format)) is not None:
        body["format"] = answer_format
    warnings = [f"{what} is not supported by {name} and was ignored" for what in unsupported]
    if effort := effort_of(request):
        think, warning = _think(name, request.model, effort, thinks=thinks)
        body |= {} if think is None else {"think": think}
        warnings += [warning] if warning else []
    return body, warnings


def _think(name: str, model: str, effort: str, *, thinks: bool) -> tuple[bool | str | None, str | None]:
    """Return whether to think, or how hard; None: nothing is sent. Then a warning where that is not what was asked."""
    if not thinks:
        return None, None if effort == "none" else ignored(name, model)
    if not _KNOWS_LEVELS.match(model):
        return effort != "none", None
    taken = nearest(effort, _LEVELS)
    return taken, changed(name, model, taken) if taken and taken != effort else None


def least_tokens(messages: Sequence[Message]) -> int:
    """Return a number of tokens that the texts of ``messages`` have at least.

    No tokenizer joins words over the space between them, and hardly any token stands for more than eight bytes, so the
    greater of the two counts is a lower bound: about three quarters of the true count for English, less for others.
    """
    words = [word for message in messages for word in message.text().split()]
    return max(len(words), len("".join(words).encode(errors="replace")) // _BYTES_IN_A_TOKEN)


def _messages(name: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    tool_names: dict[str, str] = {}
    bodies = []
    for message in messages:
        body: dict[str, Any] = {"role": message.role, "content": message.text()}
        if not isinstance(message.content, str) and (images := _images(name, message.content)):
            body["images"] = images
        if message.tool_calls:
            body["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
            tool_names.update({call["id"]: call["function"]["name"] for call in message.tool_calls if call.get("id")})
        if message.role == "tool":
            body["tool_call_id"] = message.tool_call_id
            body["tool_name"] = message.name or tool_names.get(message.tool_call_id or "", "")
        bodies.append(body)
    return bodies


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    try:
        function = call["function"]
        arguments = json.loads(function.get("arguments") or "{}")
        return {"id": call.get("id", ""), "function": {"name": function["name"], "arguments": arguments}}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InvalidRequest("A tool call of the conversation is not in OpenAI's shape.", param="messages") from None


def _images(name: str, parts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the images as base64. They are decoded here: an address is not fetched, and a path is never opened."""
    images = []
    for part in parts:
        if part.get("type") == "text":
            continue
        source = part.get("image_url")
        url = source.get("url") if isinstance(source, dict) else source
        if not isinstance(url, str):
            raise UnsupportedFeature(f"{name} takes text and images, not {part.get('type')!r}.", param="messages")
        head, _, data = url.partition(",")
        if not (head.startswith("data:") and head.endswith(";base64")):
            raise UnsupportedFeature(
                f"{name} fetches no images. Send the image itself as data:image/…;base64,…", param="messages"
            )
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("An image of the conversation is not valid base64.", param="messages") from None
        images.append(data)
    return images


def _format(response_format: dict[str, Any] | None) -> str | dict[str, Any] | None:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    raise InvalidRequest("response_format is not in OpenAI's shape.", param="response_format")
