"""Conversations as files: Markdown to read, JSON and JSON Lines to keep and to bring back (see ``restore``).

JSON holds one conversation, or a list of them. JSON Lines holds one on each line and is OpenAI's chat format
(``{"messages": [{"role", "content"}, …]}``) with more keys. Both name fields as the API does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from ai_lab.conversations.markdown import heading_of, section_of
from ai_lab.conversations.schemas import Conversation
from ai_lab.conversations.service import Conversations

ExportFormat = Literal["markdown", "json", "jsonl"]
_BLOCK_CHARACTERS = 64 * 1024
# Ordinary signs in JSON, but line ends for many programs that read by lines.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def export_conversation(
    conversations: Conversations, conversation: Conversation, kind: ExportFormat
) -> AsyncIterator[bytes]:
    """Yield one conversation as a file, piece by piece."""
    if kind == "markdown":
        return _in_blocks(_markdown(conversations, conversation))
    return _in_blocks(_document(conversations, conversation, kind))


def export_everything(conversations: Conversations, kind: Literal["json", "jsonl"]) -> AsyncIterator[bytes]:
    """Yield all conversations, the archived ones too, as a file, piece by piece."""
    return _in_blocks(_all(conversations, kind))


async def _all(conversations: Conversations, kind: Literal["json", "jsonl"]) -> AsyncIterator[str]:
    between = "[\n"
    async for conversation in conversations.every():
        if kind == "json":
            yield between
            between = ",\n"
        async for piece in _document(conversations, conversation, kind):
            yield piece
    if kind == "json":
        yield "]\n" if between == ",\n" else "[]\n"


async def _document(conversations: Conversations, conversation: Conversation, kind: ExportFormat) -> AsyncIterator[str]:
    head = conversation.model_dump_json(exclude={"matches"})
    yield _on_one_line(head[:-1]) + ',"messages":['
    between = line = "\n" if kind == "json" else ""
    async for message in conversations.all_messages(conversation.session_id):
        fields = message.model_dump_json(exclude={"session_id"}, exclude_none=True)
        yield between + _on_one_line(fields)
        between = "," + line
    yield "]}\n"


async def _markdown(conversations: Conversations, conversation: Conversation) -> AsyncIterator[str]:
    yield heading_of(conversation)
    async for message in conversations.all_messages(conversation.session_id):
        yield section_of(message)


def _on_one_line(text: str) -> str:
    for sign, escaped in _LINE_ENDS.items():
        text = text.replace(sign, escaped)
    return text


async def _in_blocks(pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Join small pieces, so that a long conversation is not sent in thousands of packets."""
    held, size = [], 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _BLOCK_CHARACTERS:
            yield "".join(held).encode()
            held, size = [], 0
    if held:
        yield "".join(held).encode()
