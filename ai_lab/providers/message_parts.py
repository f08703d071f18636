"""What adapters with a wire format of their own take out of messages in OpenAI's shapes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from ai_lab.errors import InvalidRequest, UnsupportedFeature


def image_address(name: str, part: Mapping[str, Any]) -> str:
    """Return the address of an image part: ``data:…;base64,…``, its bytes found valid, or http(s).

    Raises:
        InvalidRequest: its bytes are not valid base64.
        UnsupportedFeature: the part is no image, or its address of another kind.
    """
    source = part.get("image_url")
    url = source.get("url") if isinstance(source, Mapping) else source
    if not isinstance(url, str):
        raise UnsupportedFeature(f"{name} takes text and images, not {part.get('type')!r}.", param="messages")
    if url.startswith(("https://", "http://")):
        return url
    if split_data(url) is None:
        raise UnsupportedFeature(
            f"{name} takes an image as data:image/…;base64,… or at an https:// address.", param="messages"
        )
    return url


def split_data(url: str) -> tuple[str, str] | None:
    """Return media type and base64 of a ``data:`` address, None where it is no such address.

    Raises:
        InvalidRequest: it is one, but not valid base64.
    """
    head, _, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        return None
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("An image of the conversation is not valid base64.", param="messages") from None
    return head.removeprefix("data:").split(";")[0].lower(), data


def called_function(call: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a tool call.

    Raises:
        InvalidRequest: it is not in OpenAI's shape.
    """
    try:
        name = call["function"]["name"]
        arguments = json.loads(call["function"].get("arguments") or "{}")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise _malformed_call() from None
    if not (isinstance(name, str) and isinstance(arguments, dict)):
        raise _malformed_call()
    return name, arguments


def tool_function(name: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return the function of a tool definition: ``name`` and, as far as given, ``description`` and ``parameters``.

    Raises:
        InvalidRequest: it is not in OpenAI's shape.
        UnsupportedFeature: the tool is no function.
    """
    if tool.get("type", "function") != "function":
        raise UnsupportedFeature(f"{name} takes tools of type 'function' only.", param="tools")
    function = tool.get("function")
    if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
        raise InvalidRequest("A tool is not in OpenAI's shape.", param="tools")
    return function


def chosen_tool(tool_choice: Any) -> str:
    """Return ``auto``, ``none``, ``required``, or the name of the one function to call after ``function:``.

    Raises:
        InvalidRequest: it is not in OpenAI's shape.
    """
    match tool_choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return str(tool_choice)
        case {"type": "function", "function": {"name": str(name)}}:
            return f"function:{name}"
    raise InvalidRequest("tool_choice is not in OpenAI's shape.", param="tool_choice")


def _malformed_call() -> InvalidRequest:
    return InvalidRequest("A tool call of the conversation is not in OpenAI's shape.", param="messages")
