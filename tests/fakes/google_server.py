"""A scripted server that speaks Google's Gemini API, version v1beta."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

CHAT = "/v1beta/models/gemini-tiny:streamGenerateContent?alt=sse"
EMBED = "/v1beta/models/gemini-tiny:batchEmbedContents"
MODELS = "/v1beta/models?pageSize=1000"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\r\n\r\n"


def candidate(*parts: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    one: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    return event(candidates=[one | ({"finishReason": reason} if reason else {})], **more)


def text(piece: str) -> bytes:
    return candidate({"text": piece})


def counts(prompt: int, answer: int, **more: int) -> dict[str, int]:
    return {"promptTokenCount": prompt, "candidatesTokenCount": answer, **more}


def ended(reason: str = "STOP", usage: dict[str, int] | None = None) -> bytes:
    return candidate({"text": ""}, reason=reason, usageMetadata=usage or counts(7, 2))


def error_reply(code: int, status: str, message: str = "", *details: dict[str, Any]) -> Reply:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json_reply({"error": error}, code)


def stream_reply(*parts: bytes | float, **more: Any) -> Reply:
    return Reply(parts, headers={"content-type": "text/event-stream"}, **more)


def text_reply(*pieces: str) -> Reply:
    """A whole answer of these pieces."""
    return stream_reply(*(text(piece) for piece in pieces), ended(usage=counts(7, len(pieces))))


class GoogleServer(FakeServer):
    """Answers ``Hello, world`` until told otherwise with ``script(CHAT, …)``."""

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path.endswith(":streamGenerateContent?alt=sse"):
            return text_reply("Hello", ", world")
        if request.path.endswith(":batchEmbedContents"):
            asked = request.json()["requests"]
            vectors = [{"values": [float(len(one["content"]["parts"][0]["text"])), 0.5]} for one in asked]
            return json_reply({"embeddings": vectors, "usageMetadata": {"promptTokenCount": 2 * len(asked)}})
        if request.path.startswith("/v1beta/models"):
            methods = ["generateContent", "countTokens"]
            return json_reply({"models": [{"name": "models/gemini-tiny", "supportedGenerationMethods": methods}]})
        return error_reply(404, "NOT_FOUND", f"no route {request.path}")
