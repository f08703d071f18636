"""Agent states."""

from __future__ import annotations

from fastapi import APIRouter

from ai_lab.agents import AgentState, NewAgentState
from ai_lab.agents.schemas import AgentStatePage
from backend.deps import After, IdempotencyKey, LabDep, Limit, SessionPath

router = APIRouter(prefix="/agents/{session_id}", tags=["agents"])


@router.put("/state")
async def save_agent_state(
    session_id: SessionPath, new: NewAgentState, lab: LabDep, idempotency_key: IdempotencyKey = None
) -> AgentState:
    """Make this the current state; the one before stays in the history."""
    return await lab.agents.save(session_id, new, idempotency_key)


@router.get("/state")
async def get_agent_state(session_id: SessionPath, lab: LabDep) -> AgentState:
    """Return the current state."""
    return await lab.agents.current(session_id)


@router.get("/states")
async def list_agent_states(
    session_id: SessionPath, lab: LabDep, limit: Limit = 20, after: After = None
) -> AgentStatePage:
    """Return all states, the newest first."""
    return await lab.agents.history(session_id, limit=limit, after=after)
