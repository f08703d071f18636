"""The shapes of conversations and messages, shared by the library, the routes and the client."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from ai_lab.shapes import JsonObject, Moment, SessionId, Text, Title

Role = Literal["system", "user", "assistant", "tool"]
Status = Literal["complete", "streaming", "incomplete", "interrupted", "failed"]


def known_role(role: Any) -> Any:
    """Return the role in its usual spelling: earlier systems wrote User, Human or AI."""
    return _ROLES.get(role.strip().lower(), role) if isinstance(role, str) else role


_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


class Message(BaseModel):
    """One message. ``sequence`` counts from 1 without a gap within its conversation."""

    message_id: str
    session_id: str
    sequence: int
    role: Role
    content: str
    thought_process: str | None = None
    status: Status = "complete"
    model: str | None = None
    provider: str | None = None
    finish_reason: str | None = None
    reply_to: str | None = Field(default=None, description="Of an answer: the message_id of the question.")
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    created_at: datetime


class NewMessage(BaseModel):
    """A message to append without generating an answer."""

    model_config = ConfigDict(extra="forbid")

    role: Annotated[Role, BeforeValidator(known_role)]
    content: Text
    thought_process: Text | None = None
    created_at: Moment | None = Field(default=None, description="When it was said; default: now.")


class MessageMatch(BaseModel):
    """A message that a search found."""

    message_id: str
    sequence: int
    role: Role
    snippet: str


class Conversation(BaseModel):
    """A named chat session."""

    session_id: str
    title: str | None = None
    archived: bool = False
    local_only: bool = False
    metadata: dict[str, Any] | None = None
    message_count: int
    created_at: datetime
    updated_at: datetime
    matches: list[MessageMatch] | None = Field(default=None, description="Only in answers to a search.")


class NewConversation(BaseModel):
    """What a conversation is created with; everything may be left out."""

    model_config = ConfigDict(extra="forbid")

    session_id: SessionId | None = None
    title: Title | None = None
    local_only: StrictBool = Field(default=False, description="True: no model outside this machine may see it.")
    metadata: JsonObject | None = None


class ConversationChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    title: Title | None = None
    archived: StrictBool | None = None
    local_only: StrictBool | None = None
    metadata: JsonObject | None = None


class ConversationPage(BaseModel):
    """One page of conversations, the latest first."""

    data: list[Conversation]
    has_more: bool
    after: str | None = Field(default=None, description="Pass it back for the next page.")


class MessagePage(BaseModel):
    """One page of messages in the order in which they were said."""

    data: list[Message]
    has_more: bool
    after: str | None = Field(default=None, description="Pass it back for the next page.")
