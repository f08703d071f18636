"""The SQL of charges, and of their sums by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from ai_lab.costs.schemas import GroupBy
from ai_lab.costs.tables import cost_days, model_charges
from ai_lab.database.rows import every, insert_into

Row = dict[str, Any]
_KEY = ("day", "service", "model", "alias", "source")
SUMS = tuple(column.name for column in cost_days.columns if column.name not in _KEY)
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


async def add_charges(db: AsyncConnection, rows: Sequence[Row]) -> None:
    """Store charges and add them to the sums of their days; those that are there already change nothing."""
    statement = insert_into(db, model_charges).on_conflict_do_nothing(index_elements=["id"])
    added = await db.execute(statement.returning(model_charges.c.id), list({row["id"]: row for row in rows}.values()))
    new = {str(key) for key in added.scalars()}
    if new:
        await add_to_days(db, [day_of(row) for row in {row["id"]: row for row in rows}.values() if row["id"] in new])


def day_of(row: Row) -> Row:
    """Return what a charge adds to the sums of its day."""
    cost, electricity = row["cost_nanousd"], row["electricity_nanousd"]
    return {
        "day": row["at"].astimezone(UTC).date().isoformat(),
        "service": row["service"],
        "model": row["model"],
        "alias": row["alias"] or "",
        "source": row["source"],
        "attempts": 1,
        "unknown_costs": int(cost is None),
        "unknown_electricity": int(row["is_local"] and electricity is None),
        **{name: row[name] or 0 for name in _TOKENS},
        "cost_nanousd": cost or 0,
        "estimated_nanousd": (row["estimated_nanousd"] or 0) if cost is None else 0,
        "energy_joules": row["energy_joules"] or 0.0,
        "electricity_nanousd": electricity or 0,
    }


async def add_to_days(db: AsyncConnection, days: Sequence[Row]) -> None:
    """Add to the sums. The rows are taken in one order by everybody, so that no two wait for each other."""
    sums: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    for day in days:
        one = sums[tuple(day[name] for name in _KEY)]
        for name in SUMS:
            one[name] += day[name]
    insert = insert_into(db, cost_days)
    grown = {name: cost_days.c[name] + insert.excluded[name] for name in SUMS}
    values = [dict(zip(_KEY, key, strict=True)) | added for key, added in sorted(sums.items())]
    await db.execute(insert.on_conflict_do_update(index_elements=list(_KEY), set_=grown), values)


async def summed(db: AsyncConnection, group_by: GroupBy | None, start: date | None, end: date | None) -> list[Row]:
    """Return sums of some days by group; None: of all together, always one row. Keys are the groups' columns."""
    columns: Mapping[GroupBy, Sequence[ColumnElement[str]]] = {
        "service": [cost_days.c.service],
        "model": [cost_days.c.service, cost_days.c.model],
        "day": [cost_days.c.day],
        "month": [func.substr(cost_days.c.day, 1, 7).label("month")],
        "source": [cost_days.c.source],
        "alias": [cost_days.c.alias],
    }
    keys = columns[group_by] if group_by else []
    totals = [func.coalesce(func.sum(cost_days.c[name]), 0).label(name) for name in SUMS]
    query = select(*keys, *totals).where(*_days(start, end))
    return every(await db.execute(query.group_by(*keys).order_by(*keys) if keys else query))


async def spent(db: AsyncConnection, service: str | None, model: str | None, start: date, end: date) -> tuple[int, int]:
    """Return nano-dollars spent in some days, estimates included, and how many attempts' costs are not known.

    ``model`` is the service's own name for it, or ``service/model``.
    """
    query = select(
        func.coalesce(func.sum(cost_days.c.cost_nanousd + cost_days.c.estimated_nanousd), 0),
        func.coalesce(func.sum(cost_days.c.unknown_costs), 0),
    ).where(*_days(start, end))
    if service is not None:
        query = query.where(cost_days.c.service == service)
    if model is not None:
        full_name = cost_days.c.service + "/" + cost_days.c.model
        query = query.where(or_(cost_days.c.model == model, full_name == model))
    cost, unknown = (await db.execute(query)).one()
    return int(cost), int(unknown)  # Postgres adds up in decimals


async def charges_after(
    db: AsyncConnection,
    after: tuple[datetime, str] | None,
    start: date | None,
    end: date | None,
    *,
    limit: int,
    to_change: bool = False,
) -> list[Row]:
    """Return charges in order of time, from behind one on; ``to_change``: nobody else may change them meanwhile."""
    table = model_charges.c
    query = select(model_charges).order_by(table.at, table.id).limit(limit)
    if start is not None:
        query = query.where(table.at >= _midnight(start))
    if end is not None and end < date.max:
        query = query.where(table.at < _midnight(end + timedelta(days=1)))
    if after is not None:
        at, key = after
        query = query.where(table.at >= at, or_(table.at > at, and_(table.at == at, table.id > key)))
    return every(await db.execute(query.with_for_update() if to_change else query))


async def change_prices(db: AsyncConnection, changes: Sequence[Row]) -> None:
    """Give charges other prices and costs; each change has the key ``charge`` and the new values."""
    names = ("price", "price_source", "price_version", "cost_nanousd")
    statement = update(model_charges).where(model_charges.c.id == bindparam("charge"))
    await db.execute(statement.values({name: bindparam(name) for name in names}), list(changes))


def _days(start: date | None, end: date | None) -> list[ColumnElement[bool]]:
    within: list[ColumnElement[bool]] = []
    if start is not None:
        within.append(cost_days.c.day >= start.isoformat())
    if end is not None:
        within.append(cost_days.c.day <= end.isoformat())
    return within


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
