"""OpenAI's chat requests in our words, and our answers in OpenAI's."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

from ai_lab.chat.completions import Completed, Completion
from ai_lab.clock import new_id
from ai_lab.errors import InvalidRequest, LabError, ProviderError, UnsupportedFeature
from ai_lab.gateway import Call
from ai_lab.gateway.call import begins
from ai_lab.providers import ChatRequest, Chunk, Message, Usage
from ai_lab.providers.types import OPTION_NAMES
from backend.errors import openai_error, problem_of
from backend.openai_answers import (
    AnswerDetails,
    AnswerMessage,
    AskedCall,
    ChatCompletion,
    Choice,
    EmbeddingUsage,
    PromptDetails,
    TokenUsage,
)
from backend.openai_requests import (
    CompletionRequest,
    ImagePart,
    OtherPart,
    PromptMessage,
    RefusalPart,
    TextFormat,
    TextPart,
)
from backend.sse import event

_DONE = b"data: [DONE]\n\n"
#: What changes nothing about the answer of a model of one's own.
_WITHOUT_EFFECT = {
    "metadata",
    "modalities",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
_ALWAYS_ON = {"parallel_tool_calls"}
_UNSUPPORTED = {
    "audio": "No model here speaks. Leave it out, and ask for text.",
    "function_call": "This is the old form. Send tools and tool_choice.",
    "functions": "This is the old form. Send tools and tool_choice.",
    "logprobs": "Probabilities of tokens are not available. Leave it out.",
    "top_logprobs": "Probabilities of tokens are not available. Leave it out.",
    "web_search_options": "No model here searches the web. Leave it out, or give it a tool that does.",
}
_MAX_NAMED = 20
_MAX_NAME_CHARACTERS = 64


def chat_request(body: CompletionRequest) -> ChatRequest:
    """Return the request, its model still blank. What no provider knows stays in the options, to be named by it.

    Raises:
        UnsupportedFeature: it needs what no model here can do.
    """
    extra = {
        name: value
        for name, value in (body.model_extra or {}).items()
        if not _says_nothing(value) or (name in _ALWAYS_ON and value is False and body.tools)
    }
    for name, remedy in _UNSUPPORTED.items():
        if extra.get(name):
            raise UnsupportedFeature(f"{name} is not supported. {remedy}", param=name)
    if isinstance(modalities := extra.get("modalities"), list) and "audio" in modalities:
        raise UnsupportedFeature(f"modalities: {_UNSUPPORTED['audio']}", param="modalities")
    if (body.n or 1) > 1:
        raise UnsupportedFeature(
            "n: there is one answer to a request. Send the request as many times as you want answers.", param="n"
        )
    response_format = body.response_format
    return ChatRequest(
        "",
        [_message(message, number) for number, message in enumerate(body.messages)],
        _options(body, extra),
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools or []] or None,
        tool_choice=body.tool_choice if isinstance(body.tool_choice, str | None) else body.tool_choice.model_dump(),
        response_format=None
        if response_format is None or isinstance(response_format, TextFormat)
        else response_format.model_dump(by_alias=True, exclude_none=True),
    )


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ({}, [])


def _options(body: CompletionRequest, extra: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name in sorted(OPTION_NAMES) if (value := getattr(body, name)) is not None}
    if body.max_completion_tokens is not None:
        options["max_tokens"] = body.max_completion_tokens
    if isinstance(stop := options.pop("stop", None), str):
        stop = [stop]
    if stop:
        options["stop"] = stop
    ignored = [
        name
        for name, value in extra.items()
        if name not in _WITHOUT_EFFECT and not (name in _ALWAYS_ON and value is True)
    ]
    return options | {name[:_MAX_NAME_CHARACTERS]: extra[name] for name in ignored[:_MAX_NAMED]}


def _message(message: PromptMessage, number: int) -> Message:
    return Message(
        "system" if message.role == "developer" else message.role,
        _content(message, number),
        name=message.name,
        tool_calls=[call.model_dump(exclude_none=True) for call in message.tool_calls or []] or None,
        tool_call_id=message.tool_call_id,
    )


def _content(message: PromptMessage, number: int) -> str | list[dict[str, Any]]:
    """Return text wherever there is only text: many servers take nothing else."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, OtherPart):
            raise UnsupportedFeature(
                f"No model here takes {part.type!r}. Send text, or images to a model that sees.",
                param=f"messages.{number}.content",
            )
        if isinstance(part, ImagePart):
            parts.append(part.model_dump(exclude_none=True))
        else:
            parts.append(_text(part))
    if all(part["type"] == "text" for part in parts):
        if not any("cache_control" in part for part in parts):
            return "\n".join(part["text"] for part in parts)
        # Put together they are the same text as without the marks: for the response cache, and other services.
        return [*({**part, "text": part["text"] + "\n"} for part in parts[:-1]), parts[-1]]
    if message.role != "user":
        raise InvalidRequest("Only messages of the user can have images.", param=f"messages.{number}.content")
    return parts


def _text(part: TextPart | RefusalPart) -> dict[str, Any]:
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.refusal}
    marked = {"cache_control": part.cache_control} if part.cache_control else {}
    return {"type": "text", "text": part.text, **marked}


def whole_answer(call: Call, answer: Completed) -> ChatCompletion:
    """Return a whole answer."""
    message = AnswerMessage(
        content=None if answer.tool_calls and not answer.text else answer.text,
        reasoning_content=answer.reasoning or None,
        tool_calls=[AskedCall.model_validate(asked) for asked in answer.tool_calls] or None,
    )
    return ChatCompletion(
        id=_new_completion_id(),
        created=int(time.time()),
        model=(call.answered_by or call.route.first).full_name,
        choices=[Choice(message=message, finish_reason=answer.finish_reason)],
        usage=token_usage(answer.usage),
        warnings=[*call.warnings, *answer.warnings] or None,
    )


def token_usage(usage: Usage | None) -> TokenUsage | None:
    """Return OpenAI's figures, or None where the model's server did not tell both of them: none is made up."""
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    cached, reasoning = usage.cached_tokens, usage.reasoning_tokens
    return TokenUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=None if cached is None else PromptDetails(cached_tokens=cached),
        completion_tokens_details=None if reasoning is None else AnswerDetails(reasoning_tokens=reasoning),
    )


def embedding_usage(usage: Usage | None) -> EmbeddingUsage | None:
    """Return what an embedding used, or None where the model's server did not tell."""
    if usage is None or usage.prompt_tokens is None:
        return None
    return EmbeddingUsage(prompt_tokens=usage.prompt_tokens, total_tokens=usage.prompt_tokens)


class AnswerEvents:
    """Writes the chunks of one answer as OpenAI's events; all of them have the same id, time and model."""

    def __init__(self, completion: Completion, *, include_usage: bool) -> None:
        self._completion = completion
        self._head = {"id": _new_completion_id(), "object": "chat.completion.chunk", "created": int(time.time())}
        self._include_usage = include_usage
        self._begun = False

    def of(self, chunk: Chunk) -> bytes:
        """Return the events of a chunk: several for the first and the last one, and none where it says nothing."""
        written = b""
        if not self._begun:
            self._begun = True
            self._head["model"] = self._completion.model.full_name  # before, another one may still have to answer
            written += self._choice({"role": "assistant", "content": "" if chunk.text else None})
        delta: dict[str, Any] = {}
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.tool_calls:
            delta["tool_calls"] = chunk.tool_calls
        if delta:
            written += self._choice(delta)
        if chunk.finish_reason:
            warnings = [*self._completion.call.warnings, *chunk.warnings]
            written += self._choice({}, chunk.finish_reason, **({"warnings": warnings} if warnings else {}))
            if self._include_usage and (usage := token_usage(chunk.usage)):
                written += self._event(choices=[], usage=usage.model_dump(exclude_none=True))
            written += _DONE
        return written

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        no_usage_yet = {"usage": None} if self._include_usage else {}
        return self._event(choices=[choice], **no_usage_yet, **more)

    def _event(self, **fields: Any) -> bytes:
        return event(json.dumps(self._head | fields, separators=(",", ":")))


async def answer_events(completion: Completion, *, include_usage: bool, request_id: str) -> AsyncIterator[bytes]:
    """Yield an answer as events. A failure is an event with ``error``, and then nothing: no end that looks whole."""
    events = AnswerEvents(completion, include_usage=include_usage)
    try:
        async for batch in completion.batches():  # what came together is sent in one piece
            if written := b"".join(events.of(chunk) for chunk in batch if begins(chunk)):
                yield written
    except LabError as error:
        yield event(json.dumps(openai_error(problem_of(error, request_id))))
    finally:
        completion.cancel()


def vector(numbers: list[float], encoding: str | None) -> list[float] | str:
    """Return a vector as it was asked for.

    Raises:
        ProviderError: it holds what is no number, which JSON cannot say.
    """
    if not all(map(math.isfinite, numbers)):
        raise ProviderError("The model made a vector with values that are no numbers. Try another text or model.")
    if encoding != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _new_completion_id() -> str:
    return f"chatcmpl-{new_id()}"
