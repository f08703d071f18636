"""A chat request in the words of Google's Gemini API, version v1beta."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from ai_lab.errors import InvalidRequest, UnsupportedFeature
from ai_lab.providers.google_thinking import thinking_config
from ai_lab.providers.message_parts import called_function, chosen_tool, image_address, split_data, tool_function
from ai_lab.providers.reasoning_effort import OPTION as EFFORT
from ai_lab.providers.types import ChatRequest, Message

_OPTION_NAMES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "max_tokens": "maxOutputTokens",
    "stop": "stopSequences",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
#: Begins the ids of calls that the service gave none. It is not sent such ids.
OWN_CALL_ID = "call_lab_"
#: Takes the place of a signature that was not kept, as ai.google.dev/gemini-api/docs/thought-signatures tells
#: (as of 2026-11). These models refuse a call in the conversation that has none.
_NO_SIGNATURE = "skip_thought_signature_validator"
_WANTS_SIGNATURES = re.compile(r"gemini-([3-9]|\d\d)")


def chat_body(
    name: str, request: ChatRequest, *, thinks: bool, refused: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body for ``:streamGenerateContent``, and a warning for every option that is changed or not sent.

    Args:
        name: the provider's name, for texts.
        request: what is asked.
        thinks: the model thinks before it answers, and can be asked to show it.
        refused: efforts that the model was found to refuse.

    Raises:
        InvalidRequest: an image, a tool or a tool call cannot be read, or there is no such effort.
        UnsupportedFeature: the API has no word for a part of a message.
    """
    given = {option: value for option, value in request.options.items() if value is not None}
    config = {theirs: given[ours] for ours, theirs in _OPTION_NAMES.items() if ours in given}
    if isinstance(config.get("stopSequences"), str):
        config["stopSequences"] = [config["stopSequences"]]
    config |= _format(request.response_format)
    thinking, warning = thinking_config(name, request, thinks=thinks, refused=refused)
    if thinking:
        config["thinkingConfig"] = thinking
    system, contents = _contents(name, request)
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if config:
        body["generationConfig"] = config
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(name, tool) for tool in request.tools]}]
        if request.tool_choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _calling(request.tool_choice)}
    ignored = sorted(given.keys() - _OPTION_NAMES.keys() - {EFFORT})
    warnings = [f"option {option!r} is not supported by {name} and was ignored" for option in ignored]
    return body, (*warnings, warning) if warning else tuple(warnings)


def _contents(name: str, request: ChatRequest) -> tuple[str, list[dict[str, Any]]]:
    """Return the system prompt and the turns. Neighbours of one role are one turn: all results of parallel calls too.

    Texts of nothing are left out, for the API refuses them. Instructions alone are asked as a question.
    """
    system = "\n\n".join(text for message in request.messages if message.role == "system" and (text := message.text()))
    wants_signatures = bool(_WANTS_SIGNATURES.match(request.model))
    function_names = _function_names(request.messages)
    contents: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = (
            [_result(message, function_names)]
            if message.role == "tool"
            else _parts(name, message) + _calls(message, wants_signatures=wants_signatures)
        )
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    if not contents:
        return "", [{"role": "user", "parts": [{"text": system}]}]
    return system, contents


def _parts(name: str, message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}] if message.content else []
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if part.get("type") != "text":
            parts.append({"inlineData": _image(name, image_address(name, part))})
        elif part.get("text"):
            parts.append({"text": part["text"]})
    return parts


def _image(name: str, address: str) -> dict[str, str]:
    data = split_data(address)
    if data is None:
        raise UnsupportedFeature(
            f"{name} fetches no images. Send the image itself as data:image/…;base64,…", param="messages"
        )
    return {"mimeType": "image/jpeg" if data[0] == "image/jpg" else data[0], "data": data[1]}


def _calls(message: Message, *, wants_signatures: bool) -> list[dict[str, Any]]:
    """Return the calls of a turn as parts. A signature belongs to its part; of parallel calls the first has one."""
    parts: list[dict[str, Any]] = []
    for call in message.tool_calls or []:
        function, arguments = called_function(call)
        body: dict[str, Any] = {"name": function, "args": arguments}
        part: dict[str, Any] = {"functionCall": body | _id(call.get("id"))}
        signature = _signature(call) or (_NO_SIGNATURE if wants_signatures and not parts else None)
        if signature:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _signature(call: dict[str, Any]) -> str | None:
    """Return what the model wants to have back, as Google's own OpenAI-compatible API hands it out."""
    match call.get("extra_content"):
        case {"google": {"thought_signature": str(signature)}}:
            return signature
    return None


def _function_names(messages: Sequence[Message]) -> dict[str, str]:
    """Return the name of the function by the id of its call."""
    return {
        call["id"]: called_function(call)[0]
        for message in messages
        for call in message.tool_calls or []
        if isinstance(call.get("id"), str)
    }


def _result(message: Message, function_names: dict[str, str]) -> dict[str, Any]:
    call_id = message.tool_call_id or ""
    function = message.name or function_names.get(call_id)
    if not function:
        raise InvalidRequest("The result of a tool belongs to no call of the conversation.", param="messages")
    text = message.text()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    response = value if isinstance(value, dict) else {"result": value}
    return {"functionResponse": {"name": function, "response": response} | _id(call_id)}


def _id(call_id: Any) -> dict[str, str]:
    is_theirs = isinstance(call_id, str) and call_id and not call_id.startswith(OWN_CALL_ID)
    return {"id": call_id} if is_theirs else {}


def _declaration(name: str, tool: dict[str, Any]) -> dict[str, Any]:
    function = tool_function(name, tool)
    body = {field: function[field] for field in ("name", "description") if function.get(field)}
    if function.get("parameters"):
        # The older field "parameters" takes a part of JSON Schema only, and refuses what it does not know.
        body["parametersJsonSchema"] = function["parameters"]
    return body


def _calling(tool_choice: Any) -> dict[str, Any]:
    kind, _, function = chosen_tool(tool_choice).partition(":")
    if kind == "function":
        return {"mode": "ANY", "allowedFunctionNames": [function]}
    return {"mode": _MODES[kind]}


def _format(response_format: dict[str, Any] | None) -> dict[str, Any]:
    match response_format:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"responseMimeType": "application/json"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"responseMimeType": "application/json", "responseJsonSchema": schema}
    raise InvalidRequest("response_format is not in OpenAI's shape.", param="response_format")
