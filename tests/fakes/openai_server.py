"""A scripted server that speaks OpenAI's API."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def delta(finish_reason: str | None = None, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]})


def usage(prompt_tokens: int, completion_tokens: int, **more: Any) -> bytes:
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, **more}
    return event({"choices": [], "usage": counts})


def stream_reply(*parts: bytes | float, **more: Any) -> Reply:
    return Reply(parts, headers={"content-type": "text/event-stream"}, **more)


def text_reply(*pieces: str) -> Reply:
    """A whole answer of these pieces."""
    return stream_reply(*(delta(content=piece) for piece in pieces), delta("stop"), usage(7, len(pieces)), DONE)


class OpenAIServer(FakeServer):
    """Answers ``Hello, world`` until told otherwise with ``script(CHAT, …)``."""

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == CHAT:
            return text_reply("Hello", ", world")
        if request.path == "/v1/models":
            return json_reply({"object": "list", "data": [{"id": "tiny", "object": "model"}]})
        if request.path == "/v1/embeddings":
            rows = [{"index": n, "embedding": [float(n), 0.5]} for n in range(len(request.json()["input"]))]
            return json_reply({"data": rows[::-1], "usage": {"prompt_tokens": 2 * len(rows)}})
        return super().default_reply(request)
