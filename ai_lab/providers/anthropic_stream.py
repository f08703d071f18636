"""The events of an answer of Anthropic's Messages API, read into chunks."""

from __future__ import annotations

import json
from typing import Any

from ai_lab.providers.event_stream import EventReader, count_of, text_of
from ai_lab.providers.types import Chunk, FinishReason, Usage

_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the service stopped a long turn of its own tools: there is more to come
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


class AnthropicReader(EventReader):
    """Read one answer. Its blocks come one after the other; those that are tool calls are numbered on their own."""

    _counts: dict[str, int]
    _calls: dict[int, int]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._counts = {}
        #: The number of a tool call by that of its block.
        self._calls = {}
        #: Arguments that stood whole at the beginning of a block, until it is known that no others come.
        self._whole_arguments: dict[int, str] = {}
        #: What was thought so far, in blocks that the service wants back with the results of the tools.
        self._thoughts: list[dict[str, str]] = []

    def _chunk(self, event: dict[str, Any]) -> Chunk | None:
        match event.get("type"):
            case "content_block_start":
                return self._started(event["index"], event["content_block"])
            case "content_block_delta":
                return self._delta(event["index"], event["delta"])
            case "content_block_stop":
                arguments = self._whole_arguments.pop(event["index"], None)
                return None if arguments is None else self._arguments(event["index"], arguments)
            case "message_start":
                self._note_usage(event["message"].get("usage"))
            case "message_delta":
                self._note_usage(event.get("usage"))
                self._note_reason(event["delta"].get("stop_reason"))
            case "message_stop":
                self.done = True
            case "message":
                return self._message(event)
            case "error":
                raise self._errors.from_report(event, self._model)
        return None

    def _message(self, message: dict[str, Any]) -> Chunk | None:
        """Read an answer that does not stream."""
        self._note_usage(message.get("usage"))
        self._note_reason(message.get("stop_reason"))
        text, reasoning, calls = "", "", []
        for index, block in enumerate(message["content"]):
            if started := self._started(index, block):
                text += started.text
                reasoning += started.reasoning
                for call in started.tool_calls or []:
                    call["function"]["arguments"] = self._whole_arguments.pop(index)
                    calls.append(call)
        return Chunk(text=text, reasoning=reasoning, tool_calls=calls or None)

    def _started(self, index: int, block: dict[str, Any]) -> Chunk | None:
        match block["type"]:
            case "text" if block.get("text"):
                return Chunk(text=text_of(block["text"]))
            case "thinking":
                thought, signature = text_of(block.get("thinking")), text_of(block.get("signature"))
                self._thoughts.append({"type": "thinking", "thinking": thought, "signature": signature})
                return Chunk(reasoning=thought) if thought else None
            case "redacted_thinking":
                self._thoughts.append({"type": "redacted_thinking", "data": text_of(block["data"])})
            case "tool_use":
                number = self._calls[index] = len(self._calls)
                self._whole_arguments[index] = json.dumps(block.get("input") or {}, ensure_ascii=False)
                function = {"name": text_of(block["name"]), "arguments": ""}
                call: dict[str, Any] = {"index": number, "id": text_of(block["id"])}
                return Chunk(tool_calls=[{**call, "type": "function", "function": function, **self._extra(number)}])
        return None

    def _delta(self, index: int, delta: dict[str, Any]) -> Chunk | None:
        match delta["type"]:
            case "text_delta" if delta["text"]:
                return Chunk(text=text_of(delta["text"]))
            case "thinking_delta" if delta["thinking"]:
                thought = text_of(delta["thinking"])
                self._thoughts[-1]["thinking"] += thought
                return Chunk(reasoning=thought)
            case "signature_delta":
                self._thoughts[-1]["signature"] += text_of(delta["signature"])
            case "input_json_delta" if delta["partial_json"] and index in self._calls:
                self._whole_arguments.pop(index, None)
                return self._arguments(index, text_of(delta["partial_json"]))
        return None

    def _arguments(self, index: int, arguments: str) -> Chunk:
        return Chunk(tool_calls=[{"index": self._calls[index], "function": {"arguments": arguments}}])

    def _extra(self, number: int) -> dict[str, Any]:
        """Return what the first call of an answer carries besides: the thoughts before it that are signed."""
        signed = [thought for thought in self._thoughts if thought.get("signature") or "data" in thought]
        return {"extra_content": {"anthropic": {"thoughts": signed}}} if signed and number == 0 else {}

    def _note_reason(self, reason: Any) -> None:
        if reason is not None:
            self.finish_reason = _FINISH_REASONS.get(text_of(reason), "stop")

    def _note_usage(self, usage: dict[str, Any] | None) -> None:
        """Keep the counts, which grow from event to event; an event may leave out what another told."""
        usage = usage or {}
        details = usage.get("output_tokens_details") or {}
        for name, value in [
            *((name, usage.get(name)) for name in _COUNTS),
            ("thinking", details.get("thinking_tokens")),
        ]:
            if (count := count_of(value)) is not None:
                self._counts[name] = max(count, self._counts.get(name, 0))

    def _usage(self) -> Usage:
        """Return OpenAI's counts: Anthropic's ``input_tokens`` leave out what its prompt cache read and wrote."""
        read, written = self._counts.get("cache_read_input_tokens"), self._counts.get("cache_creation_input_tokens")
        asked = self._counts.get("input_tokens")
        return Usage(
            prompt_tokens=None if asked is None else asked + (read or 0) + (written or 0),
            completion_tokens=self._counts.get("output_tokens"),
            cached_tokens=read,
            reasoning_tokens=self._counts.get("thinking"),
            cache_write_tokens=written,
        )
