"""Conversations and their messages, and the two addresses of earlier clients."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ai_lab.conversations import Conversation, Message, NewMessage
from ai_lab.conversations.schemas import ConversationChange, ConversationPage, MessagePage, NewConversation
from backend.deps import After, IdempotencyKey, LabDep, Limit, SessionPath

router = APIRouter(tags=["conversations"])
SearchWords = Annotated[
    str | None, Query(max_length=1000, pattern=r"^[^\x00]*$", description="Words that a message or the title holds.")
]


@router.post("/conversations", status_code=201)
async def create_conversation(
    lab: LabDep, new: NewConversation | None = None, idempotency_key: IdempotencyKey = None
) -> Conversation:
    """Start a conversation."""
    return await lab.conversations.create(new or NewConversation(), idempotency_key)


@router.get("/conversations")
async def list_conversations(
    lab: LabDep,
    limit: Limit = 20,
    after: After = None,
    query: SearchWords = None,
    archived: Annotated[bool | None, Query(description="true: only archived ones; default: only others.")] = False,
) -> ConversationPage:
    """List conversations, the latest changed first, or search them."""
    return await lab.conversations.page(limit=limit, after=after, query=query, archived=archived)


@router.get("/conversations/{session_id}")
async def get_conversation(session_id: SessionPath, lab: LabDep) -> Conversation:
    """Return a conversation without its messages."""
    return await lab.conversations.get(session_id)


@router.patch("/conversations/{session_id}")
async def change_conversation(session_id: SessionPath, change: ConversationChange, lab: LabDep) -> Conversation:
    """Rename or archive a conversation, or mark it local-only."""
    return await lab.conversations.change(session_id, change)


@router.delete("/conversations/{session_id}", status_code=204)
async def delete_conversation(session_id: SessionPath, lab: LabDep) -> None:
    """Delete a conversation and its messages for good."""
    await lab.conversations.delete(session_id)


@router.get("/conversations/{session_id}/messages")
async def list_messages(session_id: SessionPath, lab: LabDep, limit: Limit = 20, after: After = None) -> MessagePage:
    """Return messages in the order in which they were said."""
    return await lab.conversations.messages(session_id, limit=limit, after=after)


@router.post("/conversations/{session_id}/messages", status_code=201)
async def append_message(
    session_id: SessionPath, new: NewMessage, lab: LabDep, idempotency_key: IdempotencyKey = None
) -> Message:
    """Append a message without asking a model."""
    return await lab.conversations.append(session_id, new, idempotency_key=idempotency_key, must_exist=True)
