"""A scripted server that speaks Cohere's API, version 2."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

CHAT = "/v2/chat"
EMBED = "/v2/embed"
MODELS = "/v1/models?page_size=1000"
BEGUN = b'event: message-start\ndata: {"type":"message-start","id":"1","delta":{"message":{"role":"assistant"}}}\n\n'


def event(kind: str, **fields: Any) -> bytes:
    body = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {body}\n\n".encode()


def message(kind: str, index: int = 0, **fields: Any) -> bytes:
    return event(kind, index=index, delta={"message": fields})


def text(piece: str) -> bytes:
    return message("content-delta", content={"text": piece})


def thought(piece: str) -> bytes:
    return message("content-delta", content={"thinking": piece})


def call_begun(index: int, call_id: str, name: str) -> bytes:
    function = {"name": name, "arguments": ""}
    return message("tool-call-start", index, tool_calls={"id": call_id, "type": "function", "function": function})


def arguments(piece: str, index: int) -> bytes:
    return message("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})


def ended(reason: str = "COMPLETE", usage: dict[str, Any] | None = None, **more: Any) -> bytes:
    return event("message-end", id="1", delta={"finish_reason": reason, "usage": usage, **more})


def billed(prompt_tokens: float, completion_tokens: float) -> dict[str, Any]:
    """Usage as the service tells it: all tokens are more than those that it bills."""
    return {
        "billed_units": {"input_tokens": prompt_tokens, "output_tokens": completion_tokens},
        "tokens": {"input_tokens": prompt_tokens + 66, "output_tokens": completion_tokens},
    }


def error_reply(status: int, said: str = "", **headers: str) -> Reply:
    return json_reply({"id": "e", "message": said}, status, **headers)


def stream_reply(*parts: bytes | float, **more: Any) -> Reply:
    return Reply(parts, headers={"content-type": "text/event-stream"}, **more)


def text_reply(*pieces: str) -> Reply:
    """A whole answer of these pieces."""
    start = message("content-start", content={"type": "text", "text": ""})
    content = [text(piece) for piece in pieces]
    return stream_reply(BEGUN, start, *content, event("content-end", index=0), ended(usage=billed(7, len(pieces))))


class CohereServer(FakeServer):
    """Answers ``Hello, world`` until told otherwise with ``script(CHAT, …)``."""

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == CHAT:
            return text_reply("Hello", ", world")
        if request.path == EMBED:
            texts = request.json()["texts"]
            vectors = [[float(len(each)), 0.5] for each in texts]
            return json_reply(
                {"embeddings": {"float": vectors}, "meta": {"billed_units": {"input_tokens": 2.0 * len(texts)}}}
            )
        if request.path.startswith("/v1/models"):
            return json_reply({"models": [{"name": "command-tiny", "endpoints": ["chat"]}]})
        return error_reply(404, f"no route {request.path}")
