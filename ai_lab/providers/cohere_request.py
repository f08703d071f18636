"""A chat request in the words of Cohere's API, version 2."""

from __future__ import annotations

from typing import Any

from ai_lab.errors import InvalidRequest
from ai_lab.providers.message_parts import called_function, chosen_tool, image_address, tool_function
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.reasoning_effort import THINKING_TOKENS, effort_of, ignored
from ai_lab.providers.types import ChatRequest, Message

_OPTION_NAMES = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "stop": "stop_sequences",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
#: Where the API takes less than OpenAI's does.
_RANGES = {
    "top_p": (0.01, 0.99),
    "top_k": (0, 500),
    "presence_penalty": (0, 1),
    "frequency_penalty": (0, 1),
}


def chat_body(name: str, request: ChatRequest, *, thinks: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body for ``/v2/chat``, and a warning for everything in the request that it changes or leaves out.

    Args:
        name: the provider's name, for texts.
        request: what is asked.
        thinks: the model can think before it answers.

    Raises:
        InvalidRequest: an image, a tool or a tool call cannot be read, or there is no such effort.
        UnsupportedFeature: a part of a message is neither text nor an image.
    """
    options, warnings = _options(name, request)
    messages = [said for message in request.messages if (said := _message(name, message))]
    body: dict[str, Any] = {"model": request.model, "messages": messages, "stream": True, **options}
    effort = effort_of(request)
    if effort and thinks:
        body["thinking"] = _thinking(effort, options.get("max_tokens"))
    elif effort not in {None, "none"}:
        warnings.append(ignored(name, request.model))
    if request.tools:
        body |= _tools(name, request.tools, request.tool_choice)
    if (answer_format := _format(request.response_format)) is not None:
        body["response_format"] = answer_format
    return body, tuple(warnings)


def _options(name: str, request: ChatRequest) -> tuple[dict[str, Any], list[str]]:
    given = {option: value for option, value in request.options.items() if value is not None}
    warnings = [
        f"option {option!r} is not supported by {name} and was ignored"
        for option in sorted(given.keys() - _OPTION_NAMES.keys() - {EFFORT})
    ]
    options: dict[str, Any] = {}
    for option, theirs in _OPTION_NAMES.items():
        if option not in given:
            continue
        value = given[option]
        if option in _RANGES:
            least, most = _RANGES[option]
            nearest = min(max(value, least), most)
            if nearest != value:
                warnings.append(f"option {option!r} was set to {nearest}: {name} takes {least} to {most}")
            value = nearest
        options[theirs] = [value] if option == "stop" and isinstance(value, str) else value
    if options.get("presence_penalty") and options.get("frequency_penalty"):  # refused together
        del options["presence_penalty"]
        warnings.append(f"option 'presence_penalty' was ignored: {name} takes it only without 'frequency_penalty'")
    return options, warnings


def _thinking(effort: str, max_tokens: int | None) -> dict[str, Any]:
    """Return how much the model may think; of a short answer half is left for what it says."""
    if effort == "none":
        return {"type": "disabled"}
    tokens = THINKING_TOKENS[effort]
    return {"type": "enabled", "token_budget": min(tokens, max(1, max_tokens // 2)) if max_tokens else tokens}


def _message(name: str, message: Message) -> dict[str, Any] | None:
    """Return a message, None where it says nothing: the API refuses those."""
    content = _content(name, message)
    if message.role == "tool":
        if not message.tool_call_id:
            raise InvalidRequest("The result of a tool call has no id.", param="messages")
        # A result must say something.
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content or "(no output)"}
    body: dict[str, Any] = {"role": message.role}
    if content:
        body["content"] = content
    if message.tool_calls:
        for call in message.tool_calls:
            called_function(call)  # refuses what is no call
        body["tool_calls"] = [
            {"id": call.get("id", ""), "type": "function", "function": _function(call)} for call in message.tool_calls
        ]
    return body if len(body) > 1 else None


def _function(call: dict[str, Any]) -> dict[str, str]:
    function = call["function"]
    return {"name": function["name"], "arguments": function.get("arguments") or "{}"}


def _content(name: str, message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str) or not message.has_images():
        text = message.text()
        return text if text.strip() else ""
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if part.get("type") != "text":
            parts.append({"type": "image_url", "image_url": {"url": image_address(name, part)}})
        elif str(part.get("text", "")).strip():
            parts.append({"type": "text", "text": part["text"]})
    return parts


def _tools(name: str, tools: list[dict[str, Any]], tool_choice: Any) -> dict[str, Any]:
    kind, _, chosen = chosen_tool(tool_choice).partition(":")
    functions = [tool_function(name, tool) for tool in tools]
    if kind == "function":  # the API has no word for one of them: it must call one, and there is but one
        functions = [function for function in functions if function["name"] == chosen]
        if not functions:
            raise InvalidRequest("tool_choice names a function that is not among the tools.", param="tool_choice")
    body: dict[str, Any] = {"tools": [{"type": "function", "function": _definition(each)} for each in functions]}
    if kind != "auto":
        body["tool_choice"] = "NONE" if kind == "none" else "REQUIRED"
    if any(function.get("strict") for function in functions):
        body["strict_tools"] = True
    return body


def _definition(function: dict[str, Any]) -> dict[str, Any]:
    definition = {"name": function["name"], "parameters": function.get("parameters") or {"type": "object"}}
    return definition | ({"description": function["description"]} if function.get("description") else {})


def _format(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_object", "json_schema": schema}
    raise InvalidRequest("response_format is not in OpenAI's shape.", param="response_format")
