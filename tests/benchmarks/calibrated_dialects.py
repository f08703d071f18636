"""The wire formats that the calibrated server speaks: what one chunk, an end and an error look like in each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.calibrated_settings import Calibration

#: Stands in a text for the first half of a two-byte character, which no text can hold.
HALF = "\ue000"
_HALF_BYTES = b"\xc3"
_CREATED = 1_767_225_600
_NS_PER_MS = 1_000_000


@dataclass
class Outcome:
    """What the end of an answer reports; durations are those that were really kept."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish: str  # stop or length
    load_ms: float = 0.0
    prompt_ms: float = 0.0
    decode_ms: float = 0.0  # first token to last
    total_ms: float = 0.0


def encode(value: dict[str, Any]) -> bytes:
    """Return JSON as UTF-8, characters unescaped; where ``HALF`` stands it is no whole UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode().replace(HALF.encode(), _HALF_BYTES)


class OllamaDialect:
    """Lines of JSON, of ``/api/chat`` or ``/api/generate``."""

    content_type = "application/x-ndjson"
    counts_in_chunks = False
    has_role = True

    def __init__(self, body: dict[str, Any], path: str, calibration: Calibration) -> None:
        self._model, self._calibration = str(body.get("model")), calibration
        self._is_chat = path == "/api/chat"

    def role(self) -> bytes:
        return self.chunk("", is_reasoning=False, outcome=None)

    def chunk(self, text: str, *, is_reasoning: bool, outcome: Outcome | None) -> bytes:
        return self._line({**self._text(text, is_reasoning=is_reasoning), "done": False})

    def final(self, outcome: Outcome) -> list[bytes]:
        return [self._line({**self._text(""), **self._last(outcome)})]

    def whole(self, text: str, reasoning: str, outcome: Outcome) -> bytes:
        said = self._text(text)
        if reasoning:
            (said["message"] if self._is_chat else said)["thinking"] = reasoning
        return self._line({**said, **self._last(outcome)})

    def unfinished(self) -> bytes:
        return self._line({**self._text(""), "done": False})

    def error(self, message: str) -> bytes:
        return encode({"error": message}) + b"\n"

    def moved(self, reason: str, load_ms: float) -> bytes:
        """Return the answer to a request that only loads or unloads."""
        return self._line(
            {**self._text(""), "done": True, "done_reason": reason, "load_duration": round(load_ms * _NS_PER_MS)}
        )

    def _last(self, outcome: Outcome) -> dict[str, Any]:
        last: dict[str, Any] = {"done": True, "done_reason": outcome.finish}
        if not self._calibration.reports_usage:
            return last
        durations = {
            "total_duration": outcome.total_ms,
            "load_duration": outcome.load_ms,
            "prompt_eval_duration": outcome.prompt_ms,
            "eval_duration": outcome.decode_ms,
        }
        last |= {name: round(value * _NS_PER_MS) for name, value in durations.items()}
        last |= {
            "prompt_eval_count": outcome.prompt_tokens,
            "eval_count": outcome.completion_tokens + self._calibration.counts_off_by,
        }
        if self._calibration.reports_cached:
            last["prompt_eval_cached_count"] = outcome.cached_tokens
        return last

    def _text(self, text: str, *, is_reasoning: bool = False) -> dict[str, Any]:
        if self._is_chat:
            said = {"content": "", "thinking": text} if is_reasoning else {"content": text}
            return {"message": {"role": "assistant", **said}}
        return {"response": "", "thinking": text} if is_reasoning else {"response": text}

    def _line(self, values: dict[str, Any]) -> bytes:
        return encode({"model": self._model, "created_at": "2026-01-01T00:00:00.000000Z", **values}) + b"\n"


class OpenAIDialect:
    """Server-sent events of ``/v1/chat/completions`` or ``/v1/completions``; with timings as llama-server has them."""

    content_type = "text/event-stream"

    def __init__(self, body: dict[str, Any], path: str, calibration: Calibration) -> None:
        self._model, self._calibration = str(body.get("model")), calibration
        self._is_chat = self.has_role = path.endswith("/chat/completions")
        options = body.get("stream_options") or {}
        self._usage_wanted = bool(options.get("include_usage"))
        self._usage_in_chunks = bool(options.get("continuous_usage_stats")) and calibration.flavour == "openai"
        self._has_timings = calibration.flavour == "llama-server"
        self._timings_in_chunks = self._has_timings and bool(body.get("timings_per_token"))
        self.counts_in_chunks = self._usage_in_chunks or self._timings_in_chunks

    def role(self) -> bytes:
        return self._event([self._choice({"role": "assistant", "content": None}, "")])

    def chunk(self, text: str, *, is_reasoning: bool, outcome: Outcome | None) -> bytes:
        delta = {"reasoning_content": text} if is_reasoning else {"content": text}
        more: dict[str, Any] = {}
        if outcome and self._usage_in_chunks:
            more["usage"] = self._usage(outcome)
        if outcome and self._timings_in_chunks:
            more["timings"] = self._timings(outcome)
        return self._event([self._choice(delta, text)], **more)

    def final(self, outcome: Outcome) -> list[bytes]:
        timings = {"timings": self._timings(outcome)} if self._has_timings else {}
        usage = {"usage": self._usage(outcome)} if self._usage_wanted and self._calibration.reports_usage else {}
        finish = [self._choice({}, "", outcome.finish)]
        if not self._is_chat:
            return [self._event(finish, **usage, **timings), b"data: [DONE]\n\n"]
        if usage:
            return [self._event(finish), self._event([], **usage, **timings), b"data: [DONE]\n\n"]
        return [self._event(finish, **timings), b"data: [DONE]\n\n"]

    def whole(self, text: str, reasoning: str, outcome: Outcome) -> bytes:
        message = {"role": "assistant", "content": text, **({"reasoning_content": reasoning} if reasoning else {})}
        choice = {"index": 0, "finish_reason": outcome.finish}
        choice |= {"message": message} if self._is_chat else {"text": text}
        value: dict[str, Any] = {"id": "cmpl-1", "created": _CREATED, "model": self._model, "choices": [choice]}
        value["object"] = "chat.completion" if self._is_chat else "text_completion"
        if self._calibration.reports_usage:
            value["usage"] = self._usage(outcome)
        if self._has_timings:
            value["timings"] = self._timings(outcome)
        return encode(value)

    def unfinished(self) -> bytes:
        return b""

    def error(self, message: str) -> bytes:
        return b"data: " + encode({"error": {"message": message, "type": "server_error", "code": 500}}) + b"\n\n"

    def _choice(self, delta: dict[str, Any], text: str, finish: str | None = None) -> dict[str, Any]:
        said = {"delta": delta} if self._is_chat else {"text": text}
        return {"index": 0, **said, "finish_reason": finish}

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        value = {"id": "cmpl-1", "object": kind, "created": _CREATED, "model": self._model, "choices": choices, **more}
        return b"data: " + encode(value) + b"\n\n"

    def _usage(self, outcome: Outcome) -> dict[str, Any]:
        written = outcome.completion_tokens + self._calibration.counts_off_by
        usage: dict[str, Any] = {
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": outcome.prompt_tokens + written,
        }
        if self._calibration.reports_cached is not False:
            usage["prompt_tokens_details"] = {"cached_tokens": outcome.cached_tokens}
        return usage

    def _timings(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "cache_n": outcome.cached_tokens,
            "prompt_n": outcome.prompt_tokens - outcome.cached_tokens,
            "prompt_ms": outcome.prompt_ms,
            "predicted_n": outcome.completion_tokens + self._calibration.counts_off_by,
            "predicted_ms": outcome.decode_ms,
        }
