"""The events of an answer of Cohere's API, version 2, read into chunks."""

from __future__ import annotations

from typing import Any

from ai_lab.errors import ProviderTimeout
from ai_lab.providers.event_stream import EventReader, count_of, text_of
from ai_lab.providers.types import Chunk, FinishReason, Usage

_FINISH_REASONS: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
_BROKEN_REASONS = {"ERROR", "USER_CANCEL"}


class CohereReader(EventReader):
    """Read one answer. What the model says before it calls tools, its tool plan, is reasoning."""

    _told: dict[str, Any]
    _calls: dict[int, int]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._told = {}
        #: The number of a tool call by the one that the service gave it.
        self._calls = {}

    def _chunk(self, event: dict[str, Any]) -> Chunk | None:
        match event.get("type"):
            case "content-start" | "content-delta":
                return self._content(event["delta"]["message"]["content"])
            case "tool-plan-delta":
                return self._content({"thinking": event["delta"]["message"]["tool_plan"]})
            case "tool-call-start" | "tool-call-delta":
                return self._tool_call(event.get("index"), event["delta"]["message"]["tool_calls"])
            case "message-end":
                self._end(event["delta"])
                self.done = True
            case None if "message" in event and "finish_reason" in event:
                return self._message(event)
            case None | "error":
                raise self._errors.from_report(event, self._model)
        return None

    def _content(self, content: dict[str, Any] | None) -> Chunk | None:
        content = content or {}
        text, reasoning = text_of(content.get("text")), text_of(content.get("thinking"))
        return Chunk(text=text, reasoning=reasoning) if text or reasoning else None

    def _tool_call(self, index: Any, calls: Any) -> Chunk | None:
        call = calls[0] if isinstance(calls, list) else calls
        function = call.get("function") or {}
        begins = bool(call.get("id"))
        if begins:
            self._calls[index] = len(self._calls)
        part: dict[str, Any] = {"index": self._calls[index]}
        arguments = text_of(function.get("arguments"))
        if begins:
            named = {"name": text_of(function["name"]), "arguments": arguments}
            part |= {"id": text_of(call["id"]), "type": "function", "function": named}
        elif arguments:
            part["function"] = {"arguments": arguments}
        else:
            return None
        return Chunk(tool_calls=[part])

    def _end(self, delta: dict[str, Any]) -> None:
        reason = text_of(delta.get("finish_reason"))
        self._told = _details(delta, "usage")
        if reason == "TIMEOUT":
            raise ProviderTimeout(f"{self._name} gave up on its answer because it took too long. Try again.")
        if reason in _BROKEN_REASONS or (delta.get("error") and reason not in _FINISH_REASONS):
            said = delta.get("error") or "it gave up in the middle of its answer"
            raise self._errors.from_report({"message": said}, self._model)
        if reason:
            self.finish_reason = _FINISH_REASONS.get(reason, "stop")

    def _message(self, whole: dict[str, Any]) -> Chunk | None:
        """Read an answer that does not stream."""
        self._end(whole)
        message = whole["message"]
        text, reasoning = "", text_of(message.get("tool_plan"))
        for part in message.get("content") or []:
            text += text_of(part.get("text"))
            reasoning += text_of(part.get("thinking"))
        calls = [
            {
                "index": index,
                "id": text_of(call["id"]),
                "type": "function",
                "function": {
                    "name": text_of(call["function"]["name"]),
                    "arguments": text_of(call["function"].get("arguments")) or "{}",
                },
            }
            for index, call in enumerate(message.get("tool_calls") or [])
        ]
        return Chunk(text=text, reasoning=reasoning, tool_calls=calls or None)

    def _usage(self) -> Usage:
        """Return the tokens that are billed: all tokens include a preamble that the service adds and does not bill."""
        billed, counted = _details(self._told, "billed_units"), _details(self._told, "tokens")
        prompt, completion = (
            count_of(counted.get(name) if billed.get(name) is None else billed.get(name))
            for name in ("input_tokens", "output_tokens")
        )
        cached = count_of(self._told.get("cached_tokens"))
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            # Counted among all tokens, so they may be more than the billed ones.
            cached_tokens=cached if cached is None or prompt is None else min(cached, prompt),
        )


def _details(told: dict[str, Any], name: str) -> dict[str, Any]:
    details = told.get(name)
    return details if isinstance(details, dict) else {}
