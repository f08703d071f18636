"""One limit on spending: what counts for it, when its period ends, and what is said where it is reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self

from ai_lab.clock import now
from ai_lab.costs.prices import as_money, nanousd, usd
from ai_lab.costs.schemas import Budget, Period
from ai_lab.errors import BudgetExceeded, InvalidRequest, PriceUnknown
from ai_lab.logging import redact_text


@dataclass(frozen=True, slots=True)
class Limit:
    """A row of budgets."""

    id: str
    name: str
    period: Period
    service: str | None
    model: str | None
    soft_nanousd: int | None
    hard_nanousd: int | None
    warned: str | None
    created_at: datetime

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Return the limit of a row."""
        return cls(**row)

    def applies(self, service: str, model: str) -> bool:
        """Return whether an attempt at this model counts for it."""
        return self.service in {None, service} and self.model in {None, model, f"{service}/{model}"}

    def first_day(self, today: date) -> date:
        """Return the first day of the period that goes on."""
        return today if self.period == "day" else today.replace(day=1)

    def next_day(self, today: date) -> date:
        """Return the first day of the period after it."""
        if self.period == "day":
            return today + timedelta(days=1)
        return (today.replace(day=1) + timedelta(days=32)).replace(day=1)

    def period_name(self, today: date) -> str:
        """Return what ``warned`` holds for the period that goes on: ``2026-11-21`` or ``2026-11``."""
        return today.isoformat() if self.period == "day" else today.isoformat()[:7]

    def check(self) -> None:
        """Raise ``InvalidRequest`` where its amounts do not go together."""
        if self.soft_nanousd is None and self.hard_nanousd is None:
            raise InvalidRequest("A budget needs soft_usd, hard_usd or both. To be rid of it, delete it.")
        if self.soft_nanousd is not None and self.hard_nanousd is not None and self.soft_nanousd > self.hard_nanousd:
            raise InvalidRequest("soft_usd must not be above hard_usd.", param="soft_usd")

    def shown(self, used_nanousd: int, unknown_costs: int, today: date) -> Budget:
        """Return it as users see it."""
        is_hard = self.hard_nanousd is not None and used_nanousd >= self.hard_nanousd
        is_soft = self.soft_nanousd is not None and used_nanousd >= self.soft_nanousd
        return Budget(
            id=self.id,
            name=self.name,
            period=self.period,
            service=self.service,
            model=self.model,
            soft_usd=None if self.soft_nanousd is None else usd(self.soft_nanousd),
            hard_usd=None if self.hard_nanousd is None else usd(self.hard_nanousd),
            used_usd=usd(used_nanousd),
            unknown_costs=unknown_costs,
            state="hard" if is_hard else "soft" if is_soft else "fine",
            period_start=_midnight(self.first_day(today)),
            period_end=_midnight(self.next_day(today)),
            created_at=self.created_at,
        )

    def warning(self, used_nanousd: int) -> str:
        """Return what answers say where the soft limit is reached."""
        hard = f" At {as_money(self.hard_nanousd)} requests are refused." if self.hard_nanousd is not None else ""
        return (
            f"The soft limit of the budget {self.name!r} is reached: {as_money(used_nanousd)} of "
            f"{as_money(self.soft_nanousd or 0)} a {self.period} for {self._scope()} are used.{hard}"
        )

    def exceeded(self, used_nanousd: int, today: date) -> BudgetExceeded:
        """Return the error where the hard limit is reached."""
        ends_at = _midnight(self.next_day(today))
        return BudgetExceeded(
            f"The budget {self.name!r} allows {as_money(self.hard_nanousd or 0)} a {self.period} for {self._scope()}, "
            f"and {as_money(used_nanousd)} are used. It begins anew at {ends_at:%Y-%m-%d %H:%M} UTC. Until then use a "
            f"model on this machine, or raise the limit: ai-lab budget set {self.name} --hard AMOUNT",
            retry_after_seconds=max(1.0, (ends_at - now()).total_seconds()),
        )

    def price_unknown(self, service: str, model: str) -> PriceUnknown:
        """Return the error where it cannot be told what counts for the hard limit."""
        name = redact_text(f"{service}/{model}")  # some services take any name, a key in the wrong place, too
        example = json.dumps({name: {"input": 0.5, "output": 1.5}}, ensure_ascii=False)
        return PriceUnknown(
            f"The budget {self.name!r} has a hard limit for {self._scope()}, and nobody knows what {name} "
            f"costs. Give its price in US dollars per million tokens, AI_LAB_PRICES='{example}', or use another model."
        )

    def _scope(self) -> str:
        if self.service and self.model:
            return f"{self.service}/{self.model}"
        return self.service or (f"the model {self.model}" if self.model else "all services")


def nanousd_or_none(dollars: float | None) -> int | None:
    """Return dollars as nano-dollars."""
    return None if dollars is None else nanousd(dollars)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def owed(limit: Limit, charges: Sequence[dict[str, Any]]) -> int:
    """Return the nano-dollars of charges, not written yet, that count for a limit."""
    return sum(
        charge["cost_nanousd"] or charge["estimated_nanousd"] or 0
        for charge in charges
        if limit.applies(charge["service"], charge["model"])
    )
