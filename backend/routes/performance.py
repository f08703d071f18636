"""``/performance/summary``: how the lab did over a window."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ai_lab.telemetry.operations.summary import MOST_HOURS, PerformanceSummary
from backend.deps import LabDep

router = APIRouter(tags=["performance"])


@router.get("/performance/summary")
async def summary(
    lab: LabDep, hours: Annotated[float, Query(gt=0, le=MOST_HOURS, description="Length of the window.")] = 24
) -> PerformanceSummary:
    """Return counts, errors and percentiles of every operation over the last hours, and the machine's figures."""
    return await lab.telemetry.summary(hours)
