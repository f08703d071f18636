"""Which part of a conversation fits the model: whole messages, the newest ones, and always the system message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai_lab.errors import ContextOverflow
from ai_lab.providers import Message, ResolvedModel

#: Room kept for the answer where the request sets no max_tokens: a quarter of the context, at most this many tokens.
_ANSWER_TOKENS = 1024
#: A token of ordinary text has three to four bytes; it has never less than one. Two is on the safe side for all but
#: texts of rare signs, which the count by the engine or its refusal catches.
_SURE_BYTES_PER_TOKEN = 2
_LIKELY_BYTES_PER_TOKEN = 3
_TOKENS_AROUND_MESSAGE = 8


@dataclass(frozen=True)
class Prompt:
    """The messages to send and how many older ones were left out."""

    messages: list[Message]
    trimmed: int


def candidates(rows: Sequence[dict[str, Any]], system: str | None) -> tuple[list[Message], list[Message]]:
    """Return the system message (none or one: the newest) and the other messages that may be sent, in order.

    A question that got no answer at all is left out with it: many chat templates refuse two questions in a row. Of
    several answers to one question (a retried turn) the last one counts.
    """
    last_answer = {row["reply_to"]: row["sequence"] for row in rows if row["reply_to"] and row["content"]}
    failed = {row["reply_to"] for row in rows if row["reply_to"] and not row["content"]} - set(last_answer)
    past = [
        Message(row["role"], row["content"])
        for row in rows
        if row["role"] != "system"
        and row["content"]
        and row["message_id"] not in failed
        and last_answer.get(row["reply_to"], row["sequence"]) == row["sequence"]
    ]
    if system is None:
        system = newest_system(rows)
    return ([Message("system", system)] if system else []), past


def newest_system(rows: Sequence[dict[str, Any]]) -> str | None:
    """Return the system message that holds for a conversation now."""
    return next((row["content"] for row in reversed(rows) if row["role"] == "system"), None)


async def fit(
    model: ResolvedModel,
    system: list[Message],
    past: list[Message],
    question: Message,
    *,
    context_tokens: int | None,
    max_tokens: int | None,
    shrink: int = 1,
) -> Prompt:
    """Leave out the oldest messages until the prompt and room for an answer fit the context.

    ``context_tokens`` None (unknown) leaves nothing out. ``shrink`` divides the room; it is raised when the model's
    server found a prompt too long that we had thought to fit.

    Raises:
        ContextOverflow: the question alone does not fit.
    """
    everything = _from(system, past, question, 0)
    if context_tokens is None:
        return everything if shrink == 1 else _from(system, past, question, len(past) - len(past) // shrink)
    reserve = min(max_tokens or _ANSWER_TOKENS, context_tokens // 4)
    room = (context_tokens - reserve) // shrink
    if _estimate(everything.messages, _SURE_BYTES_PER_TOKEN) <= room:
        return everything
    low, high = 0, len(past)  # how many of the oldest to leave out: the fewest for which the rest fits
    while low < high:
        middle = (low + high) // 2
        if await _length(model, _from(system, past, question, middle).messages) <= room:
            high = middle
        else:
            low = middle + 1
    prompt = _from(system, past, question, low)
    if low == len(past) and (length := await _length(model, prompt.messages)) > context_tokens - 1:
        raise ContextOverflow(
            f"The message has about {length} tokens; {model.full_name} takes {context_tokens} for prompt and answer "
            "together. Shorten it, or choose a model with a larger context (AI_LAB_CONTEXT_TOKENS sets the limit for "
            "local ones).",
            param="message",
        )
    return prompt


def _from(system: list[Message], past: list[Message], question: Message, first: int) -> Prompt:
    """Return the prompt without the ``first`` oldest messages; it never starts with half an exchange."""
    while 0 < first < len(past) and past[first].role != "user":
        first += 1
    return Prompt([*system, *_alternating([*past[first:], question])], first)


def _alternating(messages: list[Message]) -> list[Message]:
    """Return the messages with neighbours of one role joined, such as two that were appended without an answer."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(message.role, f"{joined[-1].text()}\n\n{message.text()}")
        else:
            joined.append(message)
    return joined


async def _length(model: ResolvedModel, messages: list[Message]) -> int:
    exact = await model.provider.count_tokens(model.model, messages)
    return _estimate(messages, _LIKELY_BYTES_PER_TOKEN) if exact is None else exact


def _estimate(messages: list[Message], bytes_per_token: int) -> int:
    return sum(len(m.text().encode()) // bytes_per_token + _TOKENS_AROUND_MESSAGE for m in messages)
