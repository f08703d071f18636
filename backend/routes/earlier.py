"""The two addresses of clients of the earlier AI-Lab."""

from __future__ import annotations

from fastapi import APIRouter

from ai_lab.conversations import earlier
from ai_lab.conversations.earlier import Cleared, EarlierHistory
from backend.deps import LabDep, SessionPath

router = APIRouter(prefix="/conversation/{session_id}", tags=["conversations"])


@router.get("")
async def get_history(session_id: SessionPath, lab: LabDep) -> EarlierHistory:
    """Return a whole conversation as clients of the earlier AI-Lab read it; empty where there is none."""
    return await earlier.history(lab.conversations, session_id)


@router.delete("")
async def clear_history(session_id: SessionPath, lab: LabDep) -> Cleared:
    """Delete a conversation; it is no error where there is none."""
    return await earlier.clear(lab.conversations, session_id)
