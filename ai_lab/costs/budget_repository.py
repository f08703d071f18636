"""The SQL of budgets."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.costs.tables import budgets
from ai_lab.database.rows import every

Row = dict[str, Any]


async def all_budgets(db: AsyncConnection, *, to_change: bool = False) -> list[Row]:
    """Return all budgets, the oldest first; ``to_change``: nobody else may change them meanwhile."""
    query = select(budgets).order_by(budgets.c.created_at, budgets.c.id)
    return every(await db.execute(query.with_for_update() if to_change else query))


async def add_budget(db: AsyncConnection, row: Row) -> None:
    """Store a budget."""
    await db.execute(insert(budgets).values(row))


async def change_budget(db: AsyncConnection, budget_id: str, values: Row) -> None:
    """Change a budget."""
    await db.execute(update(budgets).where(budgets.c.id == budget_id).values(values))


async def remove_budget(db: AsyncConnection, budget_id: str) -> bool:
    """Delete a budget and return whether it was there."""
    return bool((await db.execute(delete(budgets).where(budgets.c.id == budget_id))).rowcount)


async def note_warning(db: AsyncConnection, budget_id: str, period: str) -> bool:
    """Note that the soft limit is passed in a period, and return whether that was news to all servers."""
    is_new = or_(budgets.c.warned.is_(None), budgets.c.warned != period)
    result = await db.execute(update(budgets).where(budgets.c.id == budget_id, is_new).values(warned=period))
    return bool(result.rowcount)
