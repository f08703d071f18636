"""Turns a request into its cache key: two requests have the same one if a model cannot tell them apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ai_lab.cache.schemas import CacheKey
from ai_lab.providers import ChatRequest, Message

#: As long as their columns; what a server of the user's own is called has no other limit.
_MOST_PROVIDER_CHARACTERS = 64
_MOST_MODEL_CHARACTERS = 255
#: Part of every key; another one makes all that was stored before unfindable.
_FORMAT = 1
#: Images included; a longer request is answered anew: it comes once, and reading it through would hold up others.
_MOST_CHARACTERS = 4_000_000
_MOST_QUESTION_CHARACTERS = 2000
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))  # ``json.dumps`` makes a new one each time
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def cache_key_of(
    provider: str,
    model: str,
    request: ChatRequest,
    *,
    most_temperature: float,
    address: str | None = None,
    is_local_only: bool = False,
) -> CacheKey | None:
    """Return the cache key of a request, None where its answer is neither stored nor given again.

    That is where the temperature asks for variety, an image lies at an address (where tomorrow another may lie), or
    the request is very long.

    Args:
        provider: its name.
        model: the provider's own name for it.
        request: what is asked.
        most_temperature: up to which answers are given again.
        address: of the provider's server; under the same name another one may be asked tomorrow.
        is_local_only: whether nothing of it may leave this machine.
    """
    temperature = request.options.get("temperature")
    if not request.messages or (temperature is not None and temperature > most_temperature):
        return None
    if len(provider) > _MOST_PROVIDER_CHARACTERS or len(model) > _MOST_MODEL_CHARACTERS:
        return None
    length = 0
    for message in request.messages:
        content = message.content
        length += len(content) if isinstance(content, str) else sum(_length(part) for part in content)
    if length > _MOST_CHARACTERS or any(_is_elsewhere(message) for message in request.messages):
        return None
    *before, last = request.messages
    head = {
        "format": _FORMAT,
        "provider": provider,
        "address": address,
        "model": model,
        "messages": [_message(message) for message in before],
        "options": _options(request.options),
        "tools": _plain(request.tools or None),
        "tool_choice": _plain(request.tool_choice),
        "response_format": _plain(request.response_format),
    }
    text = last.text() if last.role == "user" and not last.has_images() else None
    last_fields = _message(last)
    digest = hashlib.sha256(_json(head))
    whole = digest.copy()
    digest.update(_json(last_fields | ({} if text is None else {"content": None})))
    whole.update(_json(last_fields))
    if text is None or request.tools or not _is_question(text):
        text = None
    return CacheKey(whole.hexdigest(), digest.hexdigest(), text, provider, model, is_local_only)


def _is_question(text: str) -> bool:
    return 0 < len(text) <= _MOST_QUESTION_CHARACTERS and not text.isspace() and not _UNSTORABLE.search(text)


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        fields["content"] = [_part(part) for part in message.content]
        if not message.has_images():  # a list of texts is the text: adapters join them
            fields["content"] = message.text()
    optional = {"name": message.name, "tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
    return fields | {name: _plain(value) for name, value in optional.items() if value}


def _part(part: Mapping[str, Any]) -> Any:
    url = _address(part)
    if url is None:  # a mark for the service's own cache changes no answer
        return _plain({name: value for name, value in part.items() if name != "cache_control"})
    source = part.get("image_url")
    more = {name: value for name, value in source.items() if name != "url"} if isinstance(source, Mapping) else {}
    return {"image": hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest(), "more": _plain(more)}


def _address(part: Mapping[str, Any]) -> str | None:
    source = part.get("image_url")
    url = source.get("url") if isinstance(source, Mapping) else source
    return url if isinstance(url, str) else None


def _is_elsewhere(message: Message) -> bool:
    if isinstance(message.content, str):
        return False
    return any(
        part.get("type") != "text" and not (_address(part) or "").startswith("data:") for part in message.content
    )


def _length(part: Mapping[str, Any]) -> int:
    return len(part.get("text") or "") + len(_address(part) or "")


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    if not given.get("stop", True):
        del given["stop"]
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    """Return JSON in which 1.0 is 1."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _json(value: Any) -> bytes:
    return _ENCODER.encode(value).encode() + b"\n"
