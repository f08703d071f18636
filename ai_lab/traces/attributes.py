"""What spans say, by OpenTelemetry's semantic conventions for generative AI (``gen_ai.*``, status Development).

Attributes of our own begin with ``ai_lab.``. Tokens stand at the span of the call alone: programs that add spans up
would count those of its attempts twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ai_lab.traces.schemas import dollars
from ai_lab.traces.trace import Trace, TracedAttempt

_MILLISECOND_NS = 1_000_000
#: As the conventions call services that we call otherwise.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_OPTIONS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "stop": "gen_ai.request.stop_sequences",
}
_USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}


Attributes = dict[str, Any]


def name_of(trace: Trace) -> str:
    """Return the name of the span of a call: what was done, and with which model."""
    return f"{trace.operation} {trace.model or trace.asked or ''}".rstrip()


def times_of(trace: Trace, attempt: TracedAttempt | None = None) -> tuple[int, int]:
    """Return beginning and end of the call or of one attempt, in nanoseconds since 1970."""
    begun = int(trace.at.timestamp() * 1_000_000) * 1000
    if attempt is None:
        return begun, begun + int(trace.total_ms * _MILLISECOND_NS)
    ended_ms = trace.total_ms if attempt.ended_ms is None else attempt.ended_ms
    return begun + int(attempt.started_ms * _MILLISECOND_NS), begun + int(ended_ms * _MILLISECOND_NS)


def span_id_of(identifier: str) -> int:
    """Return the span id of a call or an attempt: always the same one for the same id."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest()) or 1


def call_attributes(trace: Trace) -> Attributes:
    """Return what the span of a call says; prompt and answer where they were kept and may leave this machine."""
    answering = next((one for one in reversed(trace.attempts) if one.outcome == "ok"), None)
    usage = trace.usage
    found = {
        "gen_ai.operation.name": trace.operation,
        "gen_ai.provider.name": _provider(trace.provider),
        "gen_ai.request.model": trace.model or trace.asked,
        "gen_ai.response.model": trace.model if trace.status == "complete" else None,
        "gen_ai.response.finish_reasons": [trace.finish_reason] if trace.finish_reason else None,
        "gen_ai.response.id": trace.id,
        "gen_ai.response.time_to_first_chunk": None if trace.first_token_ms is None else trace.first_token_ms / 1000,
        "gen_ai.conversation.id": trace.session_id,
        "error.type": trace.error_code,
        "ai_lab.trace": trace.id,
        "ai_lab.request_id": trace.request_id,
        "ai_lab.source": trace.source,
        "ai_lab.alias": trace.alias,
        "ai_lab.status": trace.status,
        "ai_lab.cache": trace.cache,
        "ai_lab.cache.similarity": trace.similarity,
        "ai_lab.attempts": len(trace.attempts),
        "ai_lab.cost_usd": dollars(trace.cost_nanousd),
        "ai_lab.local_only": trace.local_only,
        **_server(answering.server if answering else None),
    }
    found |= {name: getattr(usage, part) for part, name in _USAGE.items()} if usage else {}
    found |= {name: trace.options.get(option) for option, name in _OPTIONS.items()}
    if trace.load_at_start:
        found["ai_lab.host.cpu_percent"] = trace.load_at_start.cpu_percent
        found["ai_lab.host.memory_percent"] = trace.load_at_start.memory_percent
        found["ai_lab.host.gpu_percent"] = trace.load_at_start.gpu_percent
    if trace.local_only:
        return _known(found)
    if trace.prompt is not None and trace.operation == "chat":
        found["gen_ai.input.messages"] = _messages(trace.prompt.get("messages", []))
    if trace.answer is not None:
        part = {"type": "text", "content": trace.answer}
        said = {"role": "assistant", "parts": [part], "finish_reason": trace.finish_reason or "error"}
        found["gen_ai.output.messages"] = json.dumps([said])
    return _known(found)


def attempt_attributes(attempt: TracedAttempt) -> Attributes:
    """Return what the span of one attempt says."""
    usage = attempt.usage
    found = {
        "gen_ai.provider.name": _provider(attempt.provider),
        "gen_ai.request.model": attempt.model,
        "error.type": attempt.error_code,
        "ai_lab.attempt.number": attempt.number,
        "ai_lab.attempt.kind": attempt.kind,
        "ai_lab.attempt.outcome": attempt.outcome,
        "ai_lab.attempt.local": attempt.is_local,
        "ai_lab.attempt.input_tokens": usage.prompt_tokens if usage else None,
        "ai_lab.attempt.output_tokens": usage.completion_tokens if usage else None,
        "ai_lab.attempt.cost_usd": dollars(attempt.cost_nanousd),
        "ai_lab.attempt.price_source": attempt.price_source,
        "ai_lab.attempt.energy_joules": attempt.energy_joules,
        **_server(attempt.server),
    }
    return _known(found)


def _provider(name: str | None) -> str | None:
    return _PROVIDERS.get(name, name) if name else None


def _server(origin: str | None) -> Attributes:
    """Return host and port of ``host:port``."""
    if origin is None:
        return {}
    host, _, port = origin.rpartition(":")
    return {"server.address": host, "server.port": int(port)}


def _messages(messages: Sequence[dict[str, Any]]) -> str:
    """Return messages as the conventions' JSON: each has parts."""
    shaped = []
    for message in messages:
        content = message.get("content")
        texts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content or []]
        shaped.append(
            {"role": message.get("role"), "parts": [{"type": "text", "content": text} for text in texts if text]}
        )
    return json.dumps(shaped)


def _known(found: Attributes) -> Attributes:
    """Leave out what is not known: an attribute that is missing is no zero."""
    return {name: value for name, value in found.items() if value is not None}
