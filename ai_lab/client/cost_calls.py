"""What can be asked of a server about costs and budgets."""

from __future__ import annotations

from datetime import date
from typing import Any

from ai_lab.client.calls import Call, once, place
from ai_lab.costs.schemas import Budget, BudgetChange, BudgetList, CostSummary, GroupBy, NewBudget, Repricing
from ai_lab.errors import BudgetNotFound

#: As text: 2026-11-30.
Day = date | str


def summary(group_by: GroupBy, start: Day | None, end: Day | None) -> Call[CostSummary]:
    """Return what was spent."""
    params = {"group_by": group_by, **_days(start, end)}
    return Call("GET", "/costs/summary", CostSummary.model_validate_json, params)


def export(start: Day | None, end: Day | None) -> Call[bytes]:
    """Return every charge as CSV."""
    return Call("GET", "/costs/export", bytes, _days(start, end))


def reprice(start: Day | None, end: Day | None, *, dry_run: bool) -> Call[Repricing]:
    """Reckon history again."""
    body = {**_days(start, end), "dry_run": dry_run}
    return Call("POST", "/costs/reprice", Repricing.model_validate_json, body=body, headers=once())


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


def _days(start: Day | None, end: Day | None) -> dict[str, Any]:
    return {"from": start and str(start), "to": end and str(end)}
