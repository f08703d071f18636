"""The shapes of agent states."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ai_lab.shapes import JsonObject, ShortText, Text


class NewAgentState(BaseModel):
    """A state to save."""

    model_config = ConfigDict(extra="forbid")

    message: Text = ""
    status: ShortText = "pending"
    feedback: Text = ""
    thought_process: Text = ""
    data: JsonObject | None = Field(default=None, description="Anything else the agent wants back.")


class AgentState(BaseModel):
    """A saved state; ``sequence`` counts the states of one agent from 1."""

    state_id: str
    session_id: str
    sequence: int
    message: str
    status: str
    feedback: str
    thought_process: str
    data: dict[str, Any] | None = None
    created_at: datetime


class AgentStatePage(BaseModel):
    """One page of states, the newest first."""

    data: list[AgentState]
    has_more: bool
    after: str | None = Field(default=None, description="Pass it back for the next page.")
