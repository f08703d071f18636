"""A chat request in the words of Anthropic's Messages API, version 2023-06-01."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ai_lab.errors import InvalidRequest, UnsupportedFeature
from ai_lab.providers.anthropic_thinking import DEFAULT_MAX_TOKENS, Mind, asked_thinking
from ai_lab.providers.message_parts import called_function, chosen_tool, image_address, split_data, tool_function
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.types import ChatRequest, Message

#: What the newest models refuse altogether; they choose for themselves.
SAMPLING_OPTIONS = frozenset({"temperature", "top_p", "top_k"})
_OPTIONS = SAMPLING_OPTIONS | {"max_tokens", "stop", EFFORT}
_MARK = "cache_control"
_ONE_CALL = "parallel_tool_calls"
_MOST_TEMPERATURE = 1.0
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def message_body(
    name: str, request: ChatRequest, *, most_tokens: int | None, takes_sampling: bool, mind: Mind | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body for ``/v1/messages``, and a warning for everything in the request that it changes or leaves out.

    Args:
        name: the provider's name, for texts.
        request: what is asked.
        most_tokens: the longest answer that the model can write, None where that is not known.
        takes_sampling: the model takes temperature, top_p and top_k.
        mind: how the model thinks; None: it refuses the effort that is asked for.

    Raises:
        InvalidRequest: an image, a tool or a tool call cannot be read, or there is no such effort.
        UnsupportedFeature: the API has no word for a part of a message, or for JSON without a schema.
    """
    warnings: list[str] = []
    system, messages = _messages(name, request.messages)
    body: dict[str, Any] = {"model": request.model, "messages": messages, "stream": True}
    if system and not messages:  # the API wants a question: instructions alone are asked as one
        body["messages"] = [{"role": "user", "content": system}]
    elif system:
        body["system"] = system if len(system) > 1 or _MARK in system[0] else system[0]["text"]
    thinking = asked_thinking(name, request, mind, messages, most_tokens)
    warnings += [thinking.warning] if thinking.warning else []
    body |= thinking.fields
    body |= _options(
        name, request, most_tokens, warnings, takes_sampling=takes_sampling, thinking_tokens=thinking.tokens
    )
    if request.tools:
        body["tools"] = [_tool(name, tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice, one_call=request.options.get(_ONE_CALL) is False)
    if (answer_format := _format(name, request.response_format)) is not None:
        body["output_config"] = {**body.get("output_config", {}), "format": answer_format}
    return body, tuple(warnings)


def ignored(name: str, option: str) -> str:
    """Return the warning for an option that was not sent."""
    return f"option {option!r} is not supported by {name} and was ignored"


def _options(
    name: str,
    request: ChatRequest,
    most_tokens: int | None,
    warnings: list[str],
    *,
    takes_sampling: bool,
    thinking_tokens: int,
) -> dict[str, Any]:
    given = {
        option: value
        for option, value in request.options.items()
        if value is not None and not (option == _ONE_CALL and request.tools)
    }
    known = _OPTIONS if takes_sampling else _OPTIONS - SAMPLING_OPTIONS
    warnings += [
        ignored(f"{name}'s {request.model}" if option in SAMPLING_OPTIONS else name, option)
        for option in sorted(given.keys() - known)
    ]
    if thinking_tokens and (sampling := sorted(known & SAMPLING_OPTIONS & given.keys())):
        known -= SAMPLING_OPTIONS
        warnings += [f"option {option!r} was ignored: {name} takes it only without thinking" for option in sampling]
    options = {option: given[option] for option in known & given.keys() if option not in {"stop", EFFORT}}
    usual = DEFAULT_MAX_TOKENS + thinking_tokens
    options.setdefault("max_tokens", min(usual, most_tokens or usual))
    if most_tokens and options["max_tokens"] > most_tokens:
        options["max_tokens"] = most_tokens
        warnings.append(f"option 'max_tokens' was lowered to {most_tokens}, the most that {request.model} writes")
    if options.get("temperature", 0) > _MOST_TEMPERATURE:
        options["temperature"] = _MOST_TEMPERATURE
        warnings.append(f"option 'temperature' was lowered to 1, the most that {name} takes")
    if "temperature" in options and options.pop("top_p", None) is not None:  # models refuse the two together
        warnings.append(f"option 'top_p' was ignored: {name} takes it only without 'temperature'")
    stop = given.get("stop", [])
    sequences = [text for text in ([stop] if isinstance(stop, str) else stop) if text.strip()]
    if sequences:
        options["stop_sequences"] = sequences
    if len(sequences) < (1 if isinstance(stop, str) else len(stop)):
        warnings.append(f"option 'stop': {name} takes no sequence of blanks alone; those were ignored")
    return options


def _messages(name: str, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system prompt, in one block where nothing marks parts of it, and the turns.

    Neighbours of one role are one turn: all results of parallel calls too.
    Blocks of nothing but blanks are left out, for the API refuses them.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            system += _instructions(message)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(name, message)
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant" and turns[-1]["content"][-1]["type"] == "text":
        last = turns[-1]["content"][-1]  # to be continued; the API refuses blanks at its end
        last["text"] = last["text"].rstrip()
    if system and not any(_MARK in block for block in system):
        system = [{"type": "text", "text": "\n\n".join(block["text"] for block in system)}]
    return system, turns


def _instructions(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str) or not any(_MARK in part for part in message.content):
        return [{"type": "text", "text": text}] if (text := message.text()).strip() else []
    return [_text(part) for part in message.content if str(part.get("text", "")).strip()]


def _text(part: dict[str, Any]) -> dict[str, Any]:
    """Return a block with the mark up to which the service is to keep the prompt in its own cache."""
    mark = part.get(_MARK)
    return {"type": "text", "text": part["text"]} | ({_MARK: mark} if mark else {})


def _blocks(name: str, message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _tool_id(message.tool_call_id)}
        if content := _content(name, message):
            result["content"] = content
        return [result]
    blocks = [thought for call in message.tool_calls or [] for thought in _thoughts(call)] + _content(name, message)
    for call in message.tool_calls or []:
        function, arguments = called_function(call)
        blocks.append({"type": "tool_use", "id": _tool_id(call.get("id")), "name": function, "input": arguments})
    return blocks


def _thoughts(call: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the model thought before this call: it wants its signed thoughts back with the results."""
    match call.get("extra_content"):
        case {"anthropic": {"thoughts": list(thoughts)}}:
            return thoughts
    return []


def _content(name: str, message: Message) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else message.content
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if part.get("type") != "text":
            blocks.append({"type": "image", "source": _image_source(image_address(name, part))})
        elif str(part.get("text", "")).strip():
            blocks.append(_text(part))
    return blocks


def _image_source(address: str) -> dict[str, str]:
    data = split_data(address)
    if data is None:
        return {"type": "url", "url": address}
    media_type = "image/jpeg" if data[0] == "image/jpg" else data[0]
    return {"type": "base64", "media_type": media_type, "data": data[1]}


def _tool_id(given: Any) -> str:
    """Return an id that the API takes: a conversation may have begun at a service whose ids have other characters."""
    if not (isinstance(given, str) and given):
        raise InvalidRequest("A tool call or the result of one has no id.", param="messages")
    return _NOT_IN_AN_ID.sub("_", given)


def _tool(name: str, tool: dict[str, Any]) -> dict[str, Any]:
    function = tool_function(name, tool)
    body = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    return body | {field: function[field] for field in ("description", "strict") if function.get(field) is not None}


def _tool_choice(tool_choice: Any, *, one_call: bool) -> dict[str, Any]:
    kind, _, function = chosen_tool(tool_choice).partition(":")
    if kind == "none":
        return {"type": kind}
    choice = {"type": "tool", "name": function} if kind == "function" else {"type": {"required": "any"}.get(kind, kind)}
    return {**choice, "disable_parallel_tool_use": True} if one_call else choice


def _format(name: str, response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            raise UnsupportedFeature(
                f"{name} writes JSON by a schema only. Give one with a response_format of type 'json_schema'.",
                param="response_format",
            )
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": schema}
    raise InvalidRequest("response_format is not in OpenAI's shape.", param="response_format")
