"""What can be asked of a server about costs and budgets."""

from __future__ import annotations

from datetime import date

from ai_lab.client.calls import Call, once, place
from ai_lab.costs.schemas import Budget, BudgetChange, BudgetList, CostSummary, GroupBy, NewBudget
from ai_lab.errors import BudgetNotFound


def summary(group_by: GroupBy, start: date | None, end: date | None) -> Call[CostSummary]:
    """Return what was spent."""
    params = {"group_by": group_by, "from": start and start.isoformat(), "to": end and end.isoformat()}
    return Call("GET", "/costs/summary", CostSummary.model_validate_json, params)


def budgets() -> Call[BudgetList]:
    """Return all budgets."""
    return Call("GET", "/budgets", BudgetList.model_validate_json)


def create_budget(new: NewBudget) -> Call[Budget]:
    """Store a budget."""
    body = new.model_dump(mode="json", exclude_none=True)
    return Call("POST", "/budgets", Budget.model_validate_json, body=body, headers=once())


def change_budget(budget_id: str, change: BudgetChange) -> Call[Budget]:
    """Change a budget."""
    body = change.model_dump(mode="json", exclude_unset=True)
    return Call("PATCH", place("budgets", budget_id), Budget.model_validate_json, body=body, headers=once())


def remove_budget(budget_id: str) -> Call[None]:
    """Delete a budget."""
    return Call("DELETE", place("budgets", budget_id), lambda _: None, headers=once(), settled_by=BudgetNotFound)
