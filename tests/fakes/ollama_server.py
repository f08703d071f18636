"""A scripted server that speaks Ollama's native API."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

CHAT = "/api/chat"


def line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def piece(content: str = "", **message: Any) -> bytes:
    return line({"model": "tiny", "message": {"role": "assistant", "content": content, **message}, "done": False})


def last(prompt_eval_count: int | None = 9, done_reason: str = "stop", **more: Any) -> bytes:
    value = {
        "model": "tiny",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": done_reason,
        "total_duration": 90_000_000,
        "load_duration": 20_000_000,
        "prompt_eval_duration": 30_000_000,
        "eval_count": 2,
        "eval_duration": 40_000_000,
        **more,
    }
    return line(value if prompt_eval_count is None else {**value, "prompt_eval_count": prompt_eval_count})


def stream_reply(*parts: bytes | float, **more: Any) -> Reply:
    return Reply(parts, headers={"content-type": "application/x-ndjson"}, **more)


class OllamaServer(FakeServer):
    """Has one model, ``tiny``, with a context of 8192; answers ``Hello, world`` until told otherwise."""

    @property
    def base_url(self) -> str:
        return self.origin

    def default_reply(self, request: ReceivedRequest) -> Reply:
        match request.path:
            case "/api/chat":
                return stream_reply(piece("Hello"), piece(", world"), last())
            case "/api/tags":
                modified_at = "2026-03-01T12:00:00.123456789+02:00"
                return json_reply({"models": [{"model": "tiny", "modified_at": modified_at, "size": 1000}]})
            case "/api/show":
                info = {"general.architecture": "llama", "llama.context_length": 8192}
                return json_reply({"model_info": info, "capabilities": ["completion", "tools", "vision"]})
            case "/api/version":
                return json_reply({"version": "0.33.2"})
            case "/api/embed":
                return json_reply({"embeddings": [[1.0, 0.5] for _ in request.json()["input"]], "prompt_eval_count": 6})
        return json_reply({"error": f"no route {request.path}"}, status=404)
