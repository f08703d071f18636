"""A scripted server that speaks Anthropic's Messages API."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

MESSAGES = "/v1/messages"
MODELS = "/v1/models?limit=1000"
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def event(kind: str, **fields: Any) -> bytes:
    body = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {body}\n\n".encode()


def begun(**usage: int) -> bytes:
    message: dict[str, Any] = {"id": "msg_1", "role": "assistant", "content": [], "stop_reason": None, "usage": usage}
    return event("message_start", message=message)


def opened(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def text(piece: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})


def thought(piece: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "thinking_delta", "thinking": piece})


def signed(signature: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "signature_delta", "signature": signature})


def arguments(piece: str, index: int) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece})


def closed(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def ended(reason: str = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage) + STOP


def failed(kind: str, message: str = "") -> bytes:
    return event("error", error={"type": kind, "message": message})


def error_reply(status: int, kind: str, message: str = "", **headers: str) -> Reply:
    return json_reply({"type": "error", "error": {"type": kind, "message": message}}, status, **headers)


def stream_reply(*parts: bytes | float, **more: Any) -> Reply:
    return Reply(parts, headers={"content-type": "text/event-stream; charset=utf-8"}, **more)


def text_reply(*pieces: str) -> Reply:
    """A whole answer of these pieces."""
    return stream_reply(
        begun(input_tokens=7, output_tokens=1),
        opened(0, "text", text=""),
        *(text(piece) for piece in pieces),
        closed(),
        ended(output_tokens=len(pieces)),
    )


class AnthropicServer(FakeServer):
    """Answers ``Hello, world`` until told otherwise with ``script(MESSAGES, …)``."""

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == MESSAGES:
            return text_reply("Hello", ", world")
        if request.path.startswith("/v1/models"):
            return json_reply({"data": [{"id": "claude-tiny", "type": "model"}], "has_more": False})
        return error_reply(404, "not_found_error", f"no route {request.path}")
