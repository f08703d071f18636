"""What the gateway refuses by the lab's own rules."""

from __future__ import annotations

from ai_lab.errors.requests import InvalidRequest, LabError, NotFound


class LocalOnly(InvalidRequest):
    """The request must not leave this machine, and no model on it was named."""

    code, title = "local_only", "This request must stay on this machine"


class BudgetExceeded(LabError):
    """A hard limit on spending is reached."""

    status, code, title = 402, "budget_exceeded", "The budget is used up"


class PriceUnknown(BudgetExceeded):
    """A hard limit holds, and nobody knows what this model costs."""

    code, title = "price_unknown", "The price of this model is not known"


class BudgetNotFound(NotFound):
    """There is no budget with this id."""

    code, title = "budget_not_found", "Budget not found"


class CachedAnswerNotFound(NotFound):
    """No answer is stored under this key."""

    code, title = "cached_answer_not_found", "No such stored answer"


class TraceNotFound(NotFound):
    """There is no trace with this id, or not any more."""

    code, title = "trace_not_found", "Trace not found"
