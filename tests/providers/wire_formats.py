"""The wire formats that there are, a row each: how a service writes what every one of them says somehow.

The answers in them are short: ``look`` is called with ``{"at": "Ä"}``, 7 tokens are read and 2 written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ai_lab.providers.anthropic import Anthropic
from ai_lab.providers.azure import Azure
from ai_lab.providers.cohere import Cohere
from ai_lab.providers.google import Google
from ai_lab.providers.ollama import Ollama
from ai_lab.providers.openai_compatible import OpenAICompatible
from ai_lab.providers.types import Provider
from tests.fakes import anthropic_server, cohere_server, ollama_server, openai_server
from tests.fakes.http_server import FakeServer, Reply, json_reply

MODEL = "tiny"
ARGUMENTS = {"at": "Ä"}
#: Called with name, address, key and ``timeout_seconds``.
Make = Callable[..., Provider]


@dataclass(frozen=True)
class WireFormat:
    """How one service writes things.

    Attributes:
        make: makes its provider.
        path: where chats are sent.
        key_header: the header that carries the key, and what stands before the key in it.
        text: a piece of text.
        thought: a piece of reasoning.
        tool_call: a whole call of ``look``, in one piece or several.
        end: what ends an answer: by its nature, because it was long enough, after a call, by a filter.
        overloaded: the service reports in the middle of an answer that it has too much to do.
        error: an answer with a status and a message.
        out_of_money: the answer where the account is empty.
        filtered: the answer where a filter refuses the request, None where there is none.
    """

    name: str
    make: Make
    server: Callable[[], FakeServer]
    path: str
    key_header: tuple[str, str]
    text: Callable[[str], bytes]
    thought: Callable[[str], bytes]
    tool_call: bytes
    end: Callable[[str], bytes]
    overloaded: bytes
    error: Callable[..., Reply]
    out_of_money: Reply
    filtered: Reply | None
    content_type: str = "text/event-stream"

    def stream(self, *parts: bytes | float, **more: Any) -> Reply:
        """Return an answer of these parts that streams."""
        return Reply(parts, headers={"content-type": self.content_type}, **more)

    def whole(self, *texts: str) -> Reply:
        """Return a whole answer of these pieces of text."""
        return self.stream(*(self.text(text) for text in texts), self.end("stop"))


def _openai_error(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    return json_reply({"error": {"message": message, "code": code}}, status, **headers)


def _openai_end(reason: str) -> bytes:
    return openai_server.delta(reason) + openai_server.usage(7, 2) + openai_server.DONE


def _openai(name: str, make: Make, path: str, key_header: tuple[str, str]) -> WireFormat:
    call = {"index": 0, "id": "a", "type": "function"}
    return WireFormat(
        name=name,
        make=make,
        server=openai_server.OpenAIServer,
        path=path,
        key_header=key_header,
        text=lambda text: openai_server.delta(content=text),
        thought=lambda text: openai_server.delta(reasoning_content=text),
        tool_call=openai_server.delta(tool_calls=[{**call, "function": {"name": "look", "arguments": '{"at": '}}])
        + openai_server.delta(tool_calls=[{"index": 0, "function": {"arguments": '"Ä"}'}}]),
        end=_openai_end,
        overloaded=openai_server.event({"error": {"message": "too busy", "code": 503}}),
        error=_openai_error,
        out_of_money=_openai_error(429, "You exceeded your current quota.", "insufficient_quota"),
        filtered=_openai_error(400, "Your request was refused.", "content_policy_violation"),
    )


def _anthropic_error(status: int, message: str, **headers: str) -> Reply:
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }
    return anthropic_server.error_reply(status, kinds.get(status, "api_error"), message, **headers)


def _anthropic_end(reason: str) -> bytes:
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
    return anthropic_server.ended(reasons[reason], input_tokens=7, output_tokens=2)


ANTHROPIC = WireFormat(
    name="anthropic",
    make=Anthropic,
    server=anthropic_server.AnthropicServer,
    path=anthropic_server.MESSAGES,
    key_header=("x-api-key", ""),
    text=anthropic_server.text,
    thought=lambda text: anthropic_server.opened(0, "thinking", thinking=text, signature=""),
    tool_call=anthropic_server.opened(1, "tool_use", id="a", name="look", input={})
    + anthropic_server.arguments('{"at": ', 1)
    + anthropic_server.arguments('"Ä"}', 1)
    + anthropic_server.closed(1),
    end=_anthropic_end,
    overloaded=anthropic_server.failed("overloaded_error", "Overloaded"),
    error=_anthropic_error,
    out_of_money=_anthropic_error(400, "Your credit balance is too low to access the API."),
    filtered=_anthropic_error(400, "Output blocked by content filtering policy"),
)


def _cohere_end(reason: str) -> bytes:
    reasons = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "content_filter": "ERROR_TOXIC"}
    return cohere_server.ended(reasons[reason], cohere_server.billed(7, 2))


COHERE = WireFormat(
    name="cohere",
    make=Cohere,
    server=cohere_server.CohereServer,
    path=cohere_server.CHAT,
    key_header=("authorization", "Bearer "),
    text=cohere_server.text,
    thought=cohere_server.thought,
    tool_call=cohere_server.call_begun(0, "a", "look")
    + cohere_server.arguments('{"at": ', 0)
    + cohere_server.arguments('"Ä"}', 0),
    end=_cohere_end,
    overloaded=cohere_server.event("error", error={"message": "busy", "code": 503}),
    error=cohere_server.error_reply,
    out_of_money=cohere_server.error_reply(402, "Please add or update your payment method"),
    filtered=None,
)


def _google_event(reason: str | None = None, **part: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part] if part else []}, "index": 0}
    if reason is None:
        return openai_server.event({"candidates": [candidate]})
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 2}
    return openai_server.event({"candidates": [{**candidate, "finishReason": reason}], "usageMetadata": usage})


def _google_error(status: int, message: str, **headers: str) -> Reply:
    kinds = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED"}
    kind = kinds.get(status, "INTERNAL")
    return json_reply({"error": {"code": status, "message": message, "status": kind}}, status, **headers)


GOOGLE = WireFormat(
    name="google",
    make=Google,
    server=FakeServer,
    path=f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
    key_header=("x-goog-api-key", ""),
    text=lambda text: _google_event(text=text),
    thought=lambda text: _google_event(text=text, thought=True),
    tool_call=_google_event(functionCall={"name": "look", "args": ARGUMENTS}),
    end=lambda reason: _google_event({"length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(reason, "STOP")),
    overloaded=openai_server.event({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}),
    error=_google_error,
    out_of_money=_google_error(402, "Prepayment credits are used up."),
    filtered=Reply(
        [openai_server.event({"promptFeedback": {"blockReason": "SAFETY"}})],
        headers={"content-type": "text/event-stream"},
    ),
)


def _ollama(name: str, address: str, **more: Any) -> Provider:
    return Ollama(name, address, context_tokens=4096, **more)


OLLAMA = WireFormat(
    name="ollama",
    make=_ollama,
    server=ollama_server.OllamaServer,
    path=ollama_server.CHAT,
    key_header=("authorization", "Bearer "),
    text=ollama_server.piece,
    thought=lambda text: ollama_server.piece(thinking=text),
    tool_call=ollama_server.piece(tool_calls=[{"function": {"name": "look", "arguments": ARGUMENTS}}]),
    end=lambda reason: ollama_server.last(7, "length" if reason == "length" else "stop"),
    overloaded=ollama_server.line({"error": "busy", "status": 503}),
    error=lambda status, message, **headers: json_reply({"error": message}, status, **headers),
    out_of_money=json_reply({"error": "monthly limit reached"}, 402),
    filtered=None,
    content_type="application/x-ndjson",
)


def _azure(name: str, address: str, **more: Any) -> Provider:
    return Azure(name, address, **more)


def _openai_compatible(name: str, address: str, **more: Any) -> Provider:
    return OpenAICompatible(name, f"{address}/v1", **more)


WIRE_FORMATS = (
    _openai("openai", _openai_compatible, "/v1/chat/completions", ("authorization", "Bearer ")),
    _openai("azure", _azure, "/openai/v1/chat/completions", ("api-key", "")),
    ANTHROPIC,
    COHERE,
    GOOGLE,
    OLLAMA,
)


def arguments_of(parts: list[dict[str, Any]]) -> Any:
    """Return the arguments of a call that came in these parts."""
    return json.loads("".join(part["function"].get("arguments", "") for part in parts))
