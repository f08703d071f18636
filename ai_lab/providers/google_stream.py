"""The events of an answer of Google's Gemini API, read into chunks."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ai_lab.errors import ContentFiltered, StreamBroken
from ai_lab.providers.event_stream import EventReader, count_of, text_of
from ai_lab.providers.google_request import OWN_CALL_ID
from ai_lab.providers.types import Chunk, FinishReason, Usage

_FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
#: The model wrote what the service could not read, or the service gave up; asked again, it mostly answers.
_BROKEN_REASONS = {
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "MISSING_THOUGHT_SIGNATURE",
    "OTHER",
    "TOO_MANY_TOOL_CALLS",
    "UNEXPECTED_TOOL_CALL",
}


class GoogleReader(EventReader):
    """Read one answer. Calls of tools come whole; there is no end mark but the reason in the last event."""

    _counts: dict[str, Any]
    _calls: int

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._counts = {}
        self._calls = 0

    def _chunk(self, event: dict[str, Any]) -> Chunk | None:
        if event.get("error"):
            raise self._errors.from_report(event, self._model)
        usage = event.get("usageMetadata")
        if isinstance(usage, dict):
            self._counts.update(usage)
        blocked = (event.get("promptFeedback") or {}).get("blockReason")
        if blocked:
            reason = self._errors.clean(str(blocked))
            raise ContentFiltered(f"The content filter of {self._name} refused the request ({reason}). Reword it.")
        candidates = event.get("candidates")
        if not candidates:
            return None
        candidate = candidates[0]
        chunk = self._read_parts((candidate.get("content") or {}).get("parts") or [])
        if candidate.get("finishReason"):
            self._note_reason(text_of(candidate["finishReason"]))
            self.done = isinstance(usage, dict)
        return chunk

    def _read_parts(self, parts: list[dict[str, Any]]) -> Chunk | None:
        text, reasoning, calls = "", "", []
        for part in parts:
            if "functionCall" in part:
                calls.append(self._call(part))
            elif part.get("thought"):
                reasoning += text_of(part.get("text"))
            else:
                text += text_of(part.get("text"))
        if not (text or reasoning or calls):
            return None
        return Chunk(text=text, reasoning=reasoning, tool_calls=calls or None)

    def _call(self, part: dict[str, Any]) -> dict[str, Any]:
        asked = part["functionCall"]
        call: dict[str, Any] = {
            "index": self._calls,
            "id": text_of(asked.get("id")) or f"{OWN_CALL_ID}{secrets.token_hex(8)}",
            "type": "function",
            "function": {
                "name": text_of(asked["name"]),
                "arguments": json.dumps(asked.get("args") or {}, ensure_ascii=False),
            },
        }
        if signature := text_of(part.get("thoughtSignature")):
            call["extra_content"] = {"google": {"thought_signature": signature}}
        self._calls += 1
        return call

    def _note_reason(self, reason: str) -> None:
        if reason in _BROKEN_REASONS:
            raise StreamBroken(f"{self._name} gave up in the middle of its answer ({reason}).")
        finish = _FINISH_REASONS.get(reason, "stop")
        self.finish_reason = "tool_calls" if finish == "stop" and self._calls else finish

    def _usage(self) -> Usage:
        """Return OpenAI's counts: Gemini's ``candidatesTokenCount`` leaves out what was thought."""
        answered = count_of(self._counts.get("candidatesTokenCount"))
        thought = count_of(self._counts.get("thoughtsTokenCount"))
        asked = count_of(self._counts.get("promptTokenCount"))
        by_tools = count_of(self._counts.get("toolUsePromptTokenCount"))
        if answered is None and asked is not None:
            answered = 0  # zeros are left out
        return Usage(
            prompt_tokens=None if asked is None else asked + (by_tools or 0),
            completion_tokens=None if answered is None else answered + (thought or 0),
            cached_tokens=count_of(self._counts.get("cachedContentTokenCount")),
            reasoning_tokens=thought,
        )
