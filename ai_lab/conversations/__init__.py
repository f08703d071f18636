"""Owns chat sessions and their messages: append, list, search, export, import. Calls no model."""

from ai_lab.conversations.schemas import Conversation, Message, NewMessage
from ai_lab.conversations.service import Conversations

__all__ = ["Conversation", "Conversations", "Message", "NewMessage"]
