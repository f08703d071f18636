"""``/costs``: what attempts at models cost, summed, exported, and reckoned again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response, StreamingResponse

from ai_lab.clock import now
from ai_lab.costs.schemas import CostSummary, Day, GroupBy, RepriceCosts, Repricing
from backend.deps import LabDep

router = APIRouter(prefix="/costs", tags=["costs"])
_CSV: dict[int | str, dict[str, Any]] = {
    200: {"description": "A line of names, then one for each charge.", "content": {"text/csv": {}}}
}

From = Annotated[Day | None, Query(alias="from", description="First day (UTC). Default: the beginning.")]
To = Annotated[Day | None, Query(alias="to", description="Last day (UTC), included. Default: now.")]


@router.get("/summary")
async def cost_summary(
    lab: LabDep,
    group_by: Annotated[GroupBy, Query(description="What is shown apart.")] = "model",
    start: From = None,
    end: To = None,
) -> CostSummary:
    """Return what was spent, all together and by groups.

    What is not known is counted and never taken for nothing. Models on this machine cost electricity, which is a figure
    of its own.
    """
    return await lab.costs.summary(group_by, start, end)


@router.get("/export", response_class=Response, responses=_CSV)
async def export_costs(lab: LabDep, start: From = None, end: To = None) -> Response:
    """Return every charge as CSV, in order of time: tokens, prices and where they come from, cost, electricity."""
    headers = {"content-disposition": f'attachment; filename="ai-lab-costs-{now():%Y-%m-%d}.csv"'}
    rows = await lab.costs.export(start, end)
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/reprice")
async def reprice_costs(lab: LabDep, what: Annotated[RepriceCosts | None, Body()] = None) -> Repricing:
    """Reckon history again with the prices that are known today, each as it was at the time of the charge.

    Charges without a known cost get one where there is a price now, and wrong ones the right one; the sums follow. What
    no price is known for any more stays, and so do models on this machine.
    """
    what = what or RepriceCosts()
    return await lab.costs.reprice(what.start, what.end, dry_run=what.dry_run)
