"""Owns one turn: history in, stream out, everything saved. Does not choose among providers or retry."""

from ai_lab.chat.completions import Completions
from ai_lab.chat.schemas import Answer, Delta, NewTurn
from ai_lab.chat.service import Chat
from ai_lab.chat.turn import Turn

__all__ = ["Answer", "Chat", "Completions", "Delta", "NewTurn", "Turn"]
