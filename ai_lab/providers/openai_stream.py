"""The events of an OpenAI-compatible answer, read into chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ai_lab.errors import StreamBroken
from ai_lab.providers.event_stream import EventReader, count_of, text_of
from ai_lab.providers.http_client import parse_object
from ai_lab.providers.types import Chunk, FinishReason, Usage

_FINISH_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_NANO = 1_000_000_000
#: No call costs more.
_MOST_USD = 1000
#: A service that says this has given up in the middle.
_BROKEN_REASONS = {"error", "abort"}


class AnswerReader(EventReader):
    """Read one answer. Usage and timings arrive after ``finish_reason``; they are kept for ``last_chunk``."""

    _counts: dict[str, Any]
    _timings: dict[str, Any]
    _tool_calls: int

    def __init__(self, *args: Any, tells_cost: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self._tells_cost = tells_cost
        self._counts = {}
        self._timings = {}
        self._tool_calls = 0

    def last_chunk(self) -> Chunk:
        """Return the chunk that ends the answer; see ``EventReader``."""
        timings = {
            ours: float(self._timings[theirs])
            for ours, theirs in (("prompt_ms", "prompt_ms"), ("generation_ms", "predicted_ms"))
            if isinstance(self._timings.get(theirs), int | float)
        }
        return replace(super().last_chunk(), timings=timings)

    def _other(self, line: bytes) -> None:
        if line.startswith(b"error:"):  # llama.cpp before 2025
            raise self._errors.from_report({"error": _object_or_text(line[6:])}, self._model)

    def _usage(self) -> Usage:
        prompt = _details(self._counts, "prompt_tokens_details")
        completion = _details(self._counts, "completion_tokens_details")
        cached = (
            prompt.get("cached_tokens"),
            self._counts.get("prompt_cache_hit_tokens"),  # DeepSeek
            self._counts.get("cached_tokens"),  # Together
            self._timings.get("cache_n"),  # llama.cpp
        )
        return Usage(
            prompt_tokens=count_of(self._counts.get("prompt_tokens")),
            completion_tokens=count_of(self._counts.get("completion_tokens")),
            cached_tokens=next((count for value in cached if (count := count_of(value)) is not None), None),
            reasoning_tokens=count_of(completion.get("reasoning_tokens")),
            cache_write_tokens=count_of(prompt.get("cache_write_tokens")),
            cost_nanousd=cost_nanousd(self._counts) if self._tells_cost else None,
        )

    def _chunk(self, event: dict[str, Any]) -> Chunk | None:
        if event.get("error"):
            raise self._errors.from_report(event, self._model)
        if isinstance(usage := event.get("usage"), dict):
            self._counts = usage
        if isinstance(timings := event.get("timings"), dict):
            self._timings = timings
        choices = event.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if choice.get("error"):  # OpenRouter, where the service behind it fails
            raise self._errors.from_report(choice, self._model)
        if reason := choice.get("finish_reason"):
            if reason in _BROKEN_REASONS:
                raise StreamBroken(f"{self._name} gave up in the middle of its answer ({reason}).")
            self.finish_reason = _FINISH_REASONS.get(reason, "stop")
        delta = choice.get("delta") or choice.get("message") or {}  # a message: the service does not stream
        text = text_of(delta.get("content") or delta.get("refusal"))
        reasoning = text_of(delta.get("reasoning_content") or delta.get("reasoning"))
        tool_calls = delta.get("tool_calls")
        if not (text or reasoning or tool_calls):
            return None
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


def cost_nanousd(usage: dict[str, Any]) -> int | None:
    """Return what OpenRouter says a call cost; with a key of the user's own, what the service behind it takes too."""
    cost, behind = _usd(usage.get("cost")), _usd(_details(usage, "cost_details").get("upstream_inference_cost"))
    if cost is None:
        return None
    if usage.get("is_byok", (behind or 0) > cost):
        return None if behind is None else round((cost + behind) * _NANO)
    return round(cost * _NANO)


def _usd(value: Any) -> float | None:
    """Return an amount of money, None where it is nonsense."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _MOST_USD else None


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else {}
