"""The shapes of costs and budgets."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from ai_lab.providers import Usage
from ai_lab.shapes import ShortText

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _as_day(value: Any) -> Any:
    """Refuse what is no day: numbers would be taken for days or seconds since 1970, and midnights for days."""
    if (isinstance(value, str) and not _DAY.fullmatch(value)) or isinstance(value, int | float | datetime):
        raise ValueError("must be a day such as 2026-01-31")
    return value


#: A day of the calendar (UTC).
Day = Annotated[date, BeforeValidator(_as_day)]
GroupBy = Literal["service", "model", "day", "month", "source", "alias"]
Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Attempted:
    """What is to be paid for: one attempt that reached a model. ``id`` is unique; charging it twice changes nothing."""

    id: str
    call_id: str
    at: datetime
    source: str
    service: str
    model: str
    alias: str | None
    session_id: str | None
    is_local: bool
    outcome: str
    usage: Usage | None
    total_ms: float
    #: Mean number of local answers in the making meanwhile, this one included; the machine's power is shared by them.
    #: It is the harmonic mean, so that the shares of all of them add up to what the machine drew.
    local_load: float = 1.0
    #: False: the service refused or failed before it made a token, so that nothing is owed.
    is_answered: bool = True
    #: About the tokens of an answer that was cut before they were told; for budgets alone.
    estimate: Usage | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What it cost, in nano-dollars (1e-9 USD); None: not known. Local models cost no money but electricity.

    ``price``: US dollars per million tokens by kind (input, cached_input, cache_write, output, reasoning), and per
    request where there is such a price. ``estimated_nanousd``: of an answer that was cut; for budgets alone.
    """

    cost_nanousd: int | None
    estimated_nanousd: int | None = None
    price: dict[str, Any] | None = None
    price_source: str | None = None
    price_version: str | None = None
    energy_joules: float | None = None
    electricity_nanousd: int | None = None


class CostFigures(BaseModel):
    """Sums over attempts at models. What is not known is in no sum, and counted."""

    attempts: int = Field(description="Attempts that reached a model; an answer may have needed several.")
    prompt_tokens: int = Field(description="Cached ones included.")
    cached_tokens: int
    completion_tokens: int = Field(description="Reasoning included.")
    reasoning_tokens: int
    cost_usd: float | None = Field(description="US dollars paid to services; null: nothing of it is known.")
    unknown_costs: int = Field(description="Attempts whose cost is not known and not in the sum.")
    energy_kwh: float | None = Field(description="What models on this machine used; null: it is not known.")
    electricity_usd: float | None = Field(description="The price of that; never part of `cost_usd`.")
    unknown_electricity: int = Field(description="Attempts on this machine whose electricity has no known price.")


class CostGroup(CostFigures):
    """One group: a service, a model (`service/model`), a day, a month, a source or an alias."""

    key: str | None = Field(description="null: no alias was named.")
    service: str | None = Field(default=None, description="Of a service or model.")
    model: str | None = Field(default=None, description="The service's own name for it.")


class CostSummary(BaseModel):
    """What was spent in some days (UTC), all together and by groups, the dearest first; days and months in order."""

    model_config = ConfigDict(populate_by_name=True)

    start: date | None = Field(alias="from", description="First day; null: from the beginning.")
    end: date | None = Field(alias="to", description="Last day, included; null: until now.")
    group_by: GroupBy
    totals: CostFigures
    groups: list[CostGroup]


class RepriceCosts(BaseModel):
    """Which part of history to compute again."""

    model_config = ConfigDict(extra="forbid")

    start: Day | None = Field(default=None, alias="from", description="First day (UTC). Default: the beginning.")
    end: Day | None = Field(default=None, alias="to", description="Last day (UTC), included. Default: now.")
    dry_run: bool = Field(default=False, strict=True, description="Only say what would change.")


class Repricing(BaseModel):
    """What computing costs again with the prices of today's list has changed."""

    dry_run: bool
    looked_at: int = Field(
        description="Charges of services; those of models on this machine, and what a service itself said, stay."
    )
    changed: int
    newly_known: int = Field(description="Of the changed ones, those that had no known cost before.")
    still_unknown: int
    before_usd: float = Field(description="Sum of the known costs before.")
    after_usd: float
    difference_usd: float


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


#: US dollars; a limit of 0 allows nothing that costs money.
Dollars = Annotated[float, Field(strict=True, ge=0, le=1_000_000_000, allow_inf_nan=False), AfterValidator(_finite)]
BudgetName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f\x7f/]+$")]
ServiceName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f\x7f/]+$")]
ModelName = Annotated[ShortText, StringConstraints(min_length=1)]


class NewBudget(BaseModel):
    """A limit on spending: on all services, one service, one model of a service, or a model wherever it is."""

    model_config = ConfigDict(extra="forbid")

    name: BudgetName = Field(description="Without spaces; unique.")
    period: Period = Field(description="It begins anew every day or month (UTC).")
    service: ServiceName | None = Field(default=None, description="Default: all services.")
    model: ModelName | None = Field(default=None, description="The service's own name for it. Default: all models.")
    soft_usd: Dollars | None = Field(default=None, description="Answers carry a warning from here on.")
    hard_usd: Dollars | None = Field(default=None, description="Requests are refused from here on.")

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.soft_usd is None and self.hard_usd is None:
            raise ValueError("give soft_usd, hard_usd or both")
        if self.soft_usd is not None and self.hard_usd is not None and self.soft_usd > self.hard_usd:
            raise ValueError("soft_usd must not be above hard_usd")
        return self


class BudgetChange(BaseModel):
    """What to change; what is not named stays, and null takes a limit, service or model away."""

    model_config = ConfigDict(extra="forbid")

    name: BudgetName = Field(default_factory=str)  # no default that could be seen: only what is given counts
    period: Period = Field(default_factory=lambda: "day")
    service: ServiceName | None = None
    model: ModelName | None = None
    soft_usd: Dollars | None = None
    hard_usd: Dollars | None = None


class Budget(BaseModel):
    """A limit on spending, and how much of it is used in the period that goes on."""

    id: str
    name: str
    period: Period
    service: str | None
    model: str | None
    soft_usd: float | None
    hard_usd: float | None
    used_usd: float = Field(description="As far as it is known, and by the text that came for answers that were cut.")
    unknown_costs: int = Field(description="Attempts of the period whose cost is not known.")
    state: Literal["fine", "soft", "hard"] = Field(description="Which limit is reached.")
    period_start: datetime
    period_end: datetime = Field(description="When it begins anew.")
    created_at: datetime


class BudgetList(BaseModel):
    """All budgets, the oldest first."""

    budgets: list[Budget]
