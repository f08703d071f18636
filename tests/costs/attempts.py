"""Attempts at models to be charged, and what the tables then say of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from ai_lab.clock import new_id, now
from ai_lab.costs import Attempted
from ai_lab.costs.tables import cost_days, model_charges
from ai_lab.database import Database
from ai_lab.database.rows import every
from ai_lab.providers import Usage
from ai_lab.settings import PriceEntry

#: A million tokens for a dollar in and two out: 10 + 10 tokens are 30,000 nano-dollars.
PRICES = {"paid/*": PriceEntry(input=1, output=2)}
USAGE = Usage(10, 10)
COST_NANOUSD = 30_000


def attempted(
    service: str = "paid",
    model: str = "large",
    *,
    usage: Usage | None = USAGE,
    attempt_id: str | None = None,
    at: datetime | None = None,
    alias: str | None = None,
    session_id: str | None = None,
    is_local: bool = False,
    total_ms: float = 1000,
    local_load: float = 1,
    is_answered: bool = True,
) -> Attempted:
    """Return an attempt that has ended."""
    return Attempted(
        id=attempt_id or new_id(),
        call_id=new_id(),
        at=at or now(),
        source="chat",
        service=service,
        model=model,
        alias=alias,
        session_id=session_id,
        is_local=is_local,
        outcome="ok" if is_answered else "failed",
        usage=usage,
        total_ms=total_ms,
        local_load=local_load,
        is_answered=is_answered,
    )


async def charges(database: Database) -> list[dict[str, Any]]:
    """Return all rows, the oldest first."""
    async with database.reading() as db:
        return every(await db.execute(select(model_charges).order_by(model_charges.c.at, model_charges.c.id)))


async def sums(database: Database) -> tuple[int, int, int, int]:
    """Return cost and number of attempts by the single charges, then the same by the sums of days."""
    async with database.reading() as db:
        table, days = model_charges.c, cost_days.c
        query = select(
            select(func.coalesce(func.sum(table.cost_nanousd), 0)).scalar_subquery(),
            select(func.count(table.id)).scalar_subquery(),
            select(func.coalesce(func.sum(days.cost_nanousd), 0)).scalar_subquery(),
            select(func.coalesce(func.sum(days.attempts), 0)).scalar_subquery(),
        )
        one, two, three, four = (int(value) for value in (await db.execute(query)).one())
        return one, two, three, four
