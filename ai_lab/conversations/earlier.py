"""Messages in the shape that programs for the earlier AI-Lab read, by import and by HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from ai_lab.conversations.schemas import Message, NewMessage, Role, known_role
from ai_lab.conversations.service import Conversations
from ai_lab.errors import ConversationNotFound

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class EarlierMessage(BaseModel):
    """A message; ``role`` is spelled as it was given."""

    role: str
    content: str
    thought_process: str | None
    timestamp: str


class EarlierHistory(BaseModel):
    """A whole conversation, the oldest message first; empty where there is none."""

    session_id: str
    history: list[EarlierMessage]


class Cleared(BaseModel):
    """The conversation is gone."""

    status: Literal["success"] = "success"
    message: str


async def add(
    conversations: Conversations, session_id: str, role: str, content: str, thought_process: str | None = None
) -> Message:
    """Append a message under any role: one that is none of ours counts as the assistant's and keeps its name."""
    usual = known_role(role)
    known = _ROLES.get(usual, "assistant") if isinstance(usual, str) else usual
    new = NewMessage(role=known, content=content, thought_process=thought_process)
    return await conversations.append(session_id, new, extra=None if known == role else {"role": role})


async def history(conversations: Conversations, session_id: str) -> EarlierHistory:
    """Return all messages of a conversation."""
    messages = [_earlier(message) async for message in conversations.all_messages(session_id)]
    return EarlierHistory(session_id=session_id, history=messages)


async def clear(conversations: Conversations, session_id: str) -> Cleared:
    """Delete a conversation; it is no error where there is none."""
    try:
        await conversations.delete(session_id)
    except ConversationNotFound:
        return Cleared(message=f"There was no conversation {session_id!r}.")
    return Cleared(message=f"Conversation {session_id!r} was deleted.")


def _earlier(message: Message) -> EarlierMessage:
    spelling = (message.extra or {}).get("role")
    return EarlierMessage(
        role=spelling if isinstance(spelling, str) else message.role,
        content=message.content,
        thought_process=message.thought_process,
        timestamp=message.created_at.isoformat(),
    )
