"""The list of models of a service with OpenAI's API, in the many shapes that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_lab.providers.types import ModelInfo

#: Where services write a model's context, the one in force before the one it was trained with.
_CONTEXT_FIELDS = ("n_ctx", "max_model_len", "context_length", "context_window", "max_context_length", "n_ctx_train")
#: Together's other kinds make images, sound and video, or judge texts.
_KINDS = {"chat", "code", "embedding", "language", "model"}
#: OpenRouter's names.
_PARAMETERS = {"tools": "tools", "response_format": "json", "structured_outputs": "json", "reasoning": "thinking"}


def model_infos(listed: Any) -> list[ModelInfo]:
    """Return the models of a list; what cannot be read, and models that neither write nor embed, are left out."""
    entries = listed.get("data") if isinstance(listed, dict) else listed
    return [
        _model_info(entry)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and _is_offered(entry)
    ]


def _is_offered(entry: dict[str, Any]) -> bool:
    kind = entry.get("type")
    if isinstance(kind, str) and kind not in _KINDS:
        return False
    able = entry.get("capabilities")  # Azure
    if isinstance(able, dict) and "chat_completion" in able:
        return any(able.get(name) is True for name in ("chat_completion", "embeddings"))
    return True


def _model_info(entry: dict[str, Any]) -> ModelInfo:
    meta = _object(entry, "meta")
    size = meta.get("size")
    return ModelInfo(
        name=entry["id"],
        context_tokens=_context_tokens(entry, meta),
        size_bytes=size if isinstance(size, int) else None,
        capabilities=frozenset(_capabilities(entry)),
    )


def _context_tokens(entry: dict[str, Any], meta: dict[str, Any]) -> int | None:
    """Return the context; of several servers behind one name the least, for any of them may answer."""
    servers = [_object(entry, "top_provider"), *_servers(entry)]  # OpenRouter, Hugging Face
    counts = [count for server in servers if (count := _positive(server.get("context_length")))]
    if counts:
        return min(counts)
    contexts = (source.get(field) for field in _CONTEXT_FIELDS for source in (meta, entry))
    return next((count for value in contexts if (count := _positive(value))), None)


def _capabilities(entry: dict[str, Any]) -> Iterator[str]:
    parameters = entry.get("supported_parameters")
    for parameter in parameters if isinstance(parameters, list) else []:
        if isinstance(parameter, str) and parameter in _PARAMETERS:
            yield _PARAMETERS[parameter]
    inputs = _object(entry, "architecture").get("input_modalities")
    if isinstance(inputs, list) and "image" in inputs:
        yield "images"
    if any(server.get("supports_tools") is True for server in _servers(entry)):
        yield "tools"
    if entry.get("type") == "embedding" or "embedding" in entry["id"].lower():
        yield "embeddings"


def _servers(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the live servers of a model at Hugging Face."""
    servers = entry.get("providers")
    return [
        server
        for server in (servers if isinstance(servers, list) else [])
        if isinstance(server, dict) and server.get("status", "live") == "live"
    ]


def _object(entry: dict[str, Any], name: str) -> dict[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
