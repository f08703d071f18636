"""The events of an OpenAI-compatible answer, read into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_lab.errors import StreamBroken
from ai_lab.providers.http_client import parse_object
from ai_lab.providers.http_errors import ServiceErrors
from ai_lab.providers.types import Chunk, FinishReason, Usage

_FINISH_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
#: A service that says this has given up in the middle.
_BROKEN_REASONS = {"error", "abort"}


class AnswerReader:
    """Read one answer. Every known server puts an event on one ``data:`` line, so a line is read when it is there.

    Usage and timings arrive after ``finish_reason``; they are kept for ``last_chunk``.
    """

    def __init__(self, name: str, model: str, errors: ServiceErrors, warnings: tuple[str, ...]) -> None:
        self.done = False
        self.finish_reason: FinishReason | None = None
        self._name = name
        self._model = model
        self._errors = errors
        self._warnings = warnings
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self._tool_calls = 0

    def read(self, lines: list[bytes]) -> Iterator[Chunk]:
        """Yield the chunks in ``lines``; comments, other fields and blank lines hold none.

        Raises:
            ProviderError: the service reports an error, or sends what is no answer.
        """
        for line in lines:
            if line.startswith(b"data:"):
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    self.done = True
                    return
                if payload and (chunk := self.read_event(payload)):
                    yield chunk
            elif line.startswith(b"error:"):  # llama.cpp before 2025
                raise self._errors.from_report({"error": _object_or_text(line[6:])}, self._model)

    def read_event(self, payload: bytes) -> Chunk | None:
        """Return the chunk in one event, or None where it only holds bookkeeping."""
        try:
            event = parse_object(payload)
        except ValueError:
            raise StreamBroken(f"{self._name} sent an event that is not valid JSON.") from None
        if event.get("error"):
            raise self._errors.from_report(event, self._model)
        try:
            return self._chunk(event)
        except (AttributeError, IndexError, TypeError):
            raise StreamBroken(f"{self._name} sent an event that is not in the shape of OpenAI's API.") from None

    def last_chunk(self) -> Chunk:
        """Return the chunk that ends the answer.

        Raises:
            StreamBroken: the service never said that it had finished.
        """
        if self.finish_reason is None:
            raise StreamBroken(f"The answer of {self._name} ended in the middle, without a finish_reason.")
        prompt = _details(self._usage, "prompt_tokens_details")
        completion = _details(self._usage, "completion_tokens_details")
        cached = _count(prompt.get("cached_tokens"))
        usage = Usage(
            prompt_tokens=_count(self._usage.get("prompt_tokens")),
            completion_tokens=_count(self._usage.get("completion_tokens")),
            cached_tokens=_count(self._timings.get("cache_n")) if cached is None else cached,
            reasoning_tokens=_count(completion.get("reasoning_tokens")),
        )
        timings = {
            ours: float(self._timings[theirs])
            for ours, theirs in (("prompt_ms", "prompt_ms"), ("generation_ms", "predicted_ms"))
            if isinstance(self._timings.get(theirs), int | float)
        }
        return Chunk(
            finish_reason=self.finish_reason,
            usage=usage if usage != Usage() else None,
            timings=timings,
            warnings=self._warnings,
        )

    def _chunk(self, event: dict[str, Any]) -> Chunk | None:
        if isinstance(usage := event.get("usage"), dict):
            self._usage = usage
        if isinstance(timings := event.get("timings"), dict):
            self._timings = timings
        choices = event.get("choices")
        if not choices:
            return None
        choice = choices[0]
        delta = choice.get("delta") or choice.get("message") or {}  # a message: the service does not stream
        if reason := choice.get("finish_reason"):
            if reason in _BROKEN_REASONS:
                raise StreamBroken(f"{self._name} gave up in the middle of its answer ({reason}).")
            self.finish_reason = _FINISH_REASONS.get(reason, "stop")
        text = delta.get("content") or delta.get("refusal") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        tool_calls = delta.get("tool_calls")
        if not (text or reasoning or tool_calls):
            return None
        if not (isinstance(text, str) and isinstance(reasoning, str)):
            raise TypeError
        return Chunk(text=text, reasoning=reasoning, tool_calls=self._numbered(tool_calls) if tool_calls else None)

    def _numbered(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return tool calls that all have an ``index``: some services leave it out and send whole calls."""
        numbered = []
        for call in calls:
            index = call.get("index")
            numbered.append({**call, "index": self._tool_calls if index is None else index})
            self._tool_calls += 1
        return numbered


def _object_or_text(payload: bytes) -> Any:
    try:
        return parse_object(payload)
    except ValueError:
        return payload.decode(errors="replace").strip()


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
