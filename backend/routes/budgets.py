"""``/budgets``: limits on spending."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from ai_lab.costs.schemas import Budget, BudgetChange, BudgetList, NewBudget
from ai_lab.gateway.names import check_service
from backend.deps import IdempotencyKey, LabDep

router = APIRouter(prefix="/budgets", tags=["costs"])
BudgetId = Annotated[str, Path(min_length=1, max_length=36, pattern=r"^[^\x00]*$", description="The budget's id.")]


@router.get("")
async def list_budgets(lab: LabDep) -> BudgetList:
    """Return all budgets, each with what is used of it in the period that goes on."""
    return await lab.costs.budgets.list()


@router.post("", status_code=201)
async def create_budget(
    new: NewBudget, lab: LabDep, response: Response, idempotency_key: IdempotencyKey = None
) -> Budget:
    """Limit what is spent in a day or month (UTC); what was spent before in it counts already.

    From the soft limit on answers carry a warning, from the hard one on requests are refused with 402. Models on this
    machine go on, except those that AI_LAB_PRICES gives a price. Under a hard limit no model is asked whose price
    nobody knows: name it there.
    """
    if new.service is not None:
        check_service(new.service, lab.providers)
    budget = await lab.costs.budgets.create(new, idempotency_key=idempotency_key)
    response.headers["location"] = f"/budgets/{budget.id}"
    return budget


@router.get("/{budget_id}")
async def get_budget(budget_id: BudgetId, lab: LabDep) -> Budget:
    """Return a budget with what is used of it."""
    return await lab.costs.budgets.get(budget_id)


@router.patch("/{budget_id}")
async def change_budget(budget_id: BudgetId, change: BudgetChange, lab: LabDep) -> Budget:
    """Change a budget; what is not named stays. What was spent before counts for the new definition too."""
    if change.service is not None:
        check_service(change.service, lab.providers)
    return await lab.costs.budgets.change(budget_id, change)


@router.delete("/{budget_id}", status_code=204)
async def delete_budget(budget_id: BudgetId, lab: LabDep) -> None:
    """Delete a budget; what was spent stays known."""
    await lab.costs.budgets.remove(budget_id)
