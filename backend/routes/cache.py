"""Stored answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, status

from ai_lab.cache.schemas import CachedAnswerPage, CacheStats, Deleted
from backend.deps import After, LabDep, Limit

router = APIRouter(prefix="/cache", tags=["cache"])

_Key = Annotated[str, Path(description="As an answer names it in `cache.key`.")]


@router.get("/stats")
async def get_cache_stats(lab: LabDep) -> CacheStats:
    """Return how much is stored, and how often it helped."""
    return await lab.cache.stats()


@router.get("")
async def list_cached_answers(lab: LabDep, limit: Limit = 20, after: After = None) -> CachedAnswerPage:
    """Return stored answers, the newest first, without their texts."""
    return await lab.cache.page(limit=limit, after=after)


@router.delete("")
async def delete_cached_answers(lab: LabDep) -> Deleted:
    """Delete all stored answers; other servers give none of them any more within seconds."""
    return Deleted(deleted=await lab.cache.clear())


@router.delete("/{key}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_cached_answer(key: _Key, lab: LabDep) -> None:
    """Delete one stored answer, for instance one that a question got which only seemed to say the same."""
    await lab.cache.evict(key)
