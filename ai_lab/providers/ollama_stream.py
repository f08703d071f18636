"""The lines of an Ollama answer, read into chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ai_lab import clock
from ai_lab.errors import ProviderError, StreamBroken
from ai_lab.providers.http_client import parse_object
from ai_lab.providers.http_errors import ServiceErrors
from ai_lab.providers.types import Chunk, FinishReason, Usage

_NANOSECONDS_PER_MS = 1_000_000
#: Neither counts nor nanoseconds come near it.
_NONSENSE = 2**53
_DURATIONS = {
    "load_ms": "load_duration",
    "prompt_ms": "prompt_eval_duration",
    "generation_ms": "eval_duration",
}


class AnswerReader:
    """Read one answer. ``last`` is the line with ``done: true`` once it has come."""

    def __init__(self, name: str, model: str, errors: ServiceErrors) -> None:
        self.last: dict[str, Any] | None = None
        self._name = name
        self._model = model
        self._errors = errors
        self._tool_calls = 0

    def read(self, lines: list[bytes]) -> Iterator[Chunk]:
        """Yield the chunks in ``lines``.

        Raises:
            ProviderError: the server reports an error, or sends what is no answer.
        """
        for line in lines:
            if not line.strip():
                continue
            try:
                event = parse_object(line)
            except ValueError:
                raise StreamBroken(f"{self._name} sent a line that is not valid JSON.") from None
            if event.get("error"):
                raise self._errors.from_report(event, self._model)
            try:
                chunk = self._chunk(event.get("message") or {})
            except (AttributeError, KeyError, TypeError):
                raise StreamBroken(f"{self._name} sent a line that is not in the shape of Ollama's API.") from None
            if chunk:
                yield chunk
            if event.get("done"):
                self.last = event
                return

    def last_chunk(self) -> Chunk:
        """Return the chunk that ends the answer.

        Raises:
            StreamBroken: there was no ``done: true``.
            ProviderError: the server only loaded or unloaded the model.
        """
        if self.last is None:
            raise StreamBroken(f"The answer of {self._name} ended in the middle, without done: true.")
        reason = self.last.get("done_reason")
        if reason in {"load", "unload"}:
            raise ProviderError(f"{self._name} did {reason} {self._model} but made no answer: there was no prompt.")
        finish: FinishReason = "length" if reason == "length" else "tool_calls" if self._tool_calls else "stop"
        return Chunk(
            finish_reason=finish,
            usage=Usage(
                prompt_tokens=_number(self.last, "prompt_eval_count"),
                completion_tokens=_number(self.last, "eval_count"),
                cached_tokens=_number(self.last, "prompt_eval_cached_count"),
            ),
            timings={
                ours: duration / _NANOSECONDS_PER_MS
                for ours, theirs in _DURATIONS.items()
                if (duration := _number(self.last, theirs)) is not None
            },
        )

    def _chunk(self, message: dict[str, Any]) -> Chunk | None:
        text = message.get("content") or ""
        reasoning = message.get("thinking") or ""
        if not (isinstance(text, str) and isinstance(reasoning, str)):
            raise TypeError
        if calls := message.get("tool_calls"):
            return Chunk(text=text, reasoning=reasoning, tool_calls=[self._tool_call(call) for call in calls])
        return Chunk(text=text, reasoning=reasoning) if text or reasoning else None

    def _tool_call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the call as OpenAI's delta; Ollama sends it whole, and often without an id."""
        function = call["function"]
        arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
        index, self._tool_calls = self._tool_calls, self._tool_calls + 1
        return {
            "index": index,
            "id": call.get("id") or f"call_{clock.new_id()}",
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }


def _number(line: dict[str, Any], name: str) -> int | None:
    value = line.get(name)
    return value if isinstance(value, int) and abs(value) < _NONSENSE else None
