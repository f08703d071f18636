"""Owns agent states: the current one and all before it. Runs no agents."""

from ai_lab.agents.schemas import AgentState, NewAgentState
from ai_lab.agents.service import Agents

__all__ = ["AgentState", "Agents", "NewAgentState"]
