"""What answers of a server cost, and limits on that, for both clients: ``client.costs`` and ``client.budgets``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ai_lab.client import cost_calls as calls
from ai_lab.client.calls import Call
from ai_lab.client.cost_calls import Day
from ai_lab.costs.schemas import Budget, BudgetChange, CostSummary, GroupBy, NewBudget, Period, Repricing
from ai_lab.errors import BudgetNotFound, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_lab.client.connection import AsyncConnection, Connection

Budgets = list[Budget]


class CostClient:
    """What attempts at models cost. Days are those of UTC, as a date or as text (2026-11-30); both ends count."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def summary(self, group_by: GroupBy = "model", *, start: Day | None = None, end: Day | None = None) -> CostSummary:
        """Return what was spent, in ``totals`` and in ``groups``; what nobody knows is None and counted apart."""
        return self._connection.send(calls.summary(group_by, start, end))

    def export(self, path: str | Path, *, start: Day | None = None, end: Day | None = None) -> Path:
        """Write every charge into a CSV file, which is replaced where it is there, and return its path."""
        path = Path(path)
        path.write_bytes(self._connection.send(calls.export(start, end)))
        return path

    def reprice(self, *, start: Day | None = None, end: Day | None = None, dry_run: bool = False) -> Repricing:
        """Reckon history again with the prices that are known today; ``dry_run``: only say what would change."""
        return self._connection.send(calls.reprice(start, end, dry_run=dry_run))


class BudgetClient:
    """Limits on spending."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Budgets:
        """Return all budgets, each with what is used of it in this day or month."""
        return self._connection.send(calls.budgets()).budgets

    def set(
        self,
        name: str,
        *,
        hard_usd: float | None = None,
        soft_usd: float | None = None,
        period: Period | None = None,
        model: str | None = None,
    ) -> Budget:
        """Make a budget, or change what is given of the one that has this name.

        Args:
            name: without spaces.
            hard_usd: from here on requests are refused.
            soft_usd: from here on answers carry a warning.
            period: day or month; a new budget's is a month.
            model: only this one (``service/model``), or with a service alone all of its models; default: all there are.
        """
        given = _given(hard_usd, soft_usd, period, model)
        return self._connection.send(_setting(self.list(), name, given))

    def remove(self, name: str) -> Budget:
        """Remove a budget, by its name or id, and return what it was. Raises ``BudgetNotFound``."""
        found = _named(self.list(), name)
        self._connection.send(calls.remove_budget(found.id))
        return found


class AsyncCostClient:
    """``CostClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def summary(
        self, group_by: GroupBy = "model", *, start: Day | None = None, end: Day | None = None
    ) -> CostSummary:
        """Return what was spent, in ``totals`` and in ``groups``; what nobody knows is None and counted apart."""
        return await self._connection.send(calls.summary(group_by, start, end))

    async def export(self, path: str | Path, *, start: Day | None = None, end: Day | None = None) -> Path:
        """Write every charge into a CSV file, which is replaced where it is there, and return its path."""
        path = Path(path)
        await asyncio.to_thread(path.write_bytes, await self._connection.send(calls.export(start, end)))
        return path

    async def reprice(self, *, start: Day | None = None, end: Day | None = None, dry_run: bool = False) -> Repricing:
        """Reckon history again with the prices that are known today; ``dry_run``: only say what would change."""
        return await self._connection.send(calls.reprice(start, end, dry_run=dry_run))


class AsyncBudgetClient:
    """``BudgetClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list(self) -> Budgets:
        """Return all budgets, each with what is used of it in this day or month."""
        return (await self._connection.send(calls.budgets())).budgets

    async def set(
        self,
        name: str,
        *,
        hard_usd: float | None = None,
        soft_usd: float | None = None,
        period: Period | None = None,
        model: str | None = None,
    ) -> Budget:
        """Make a budget, or change what is given of the one that has this name; see ``BudgetClient``."""
        given = _given(hard_usd, soft_usd, period, model)
        return await self._connection.send(_setting(await self.list(), name, given))

    async def remove(self, name: str) -> Budget:
        """Remove a budget, by its name or id, and return what it was. Raises ``BudgetNotFound``."""
        found = _named(await self.list(), name)
        await self._connection.send(calls.remove_budget(found.id))
        return found


def _given(hard_usd: float | None, soft_usd: float | None, period: Period | None, model: str | None) -> dict[str, Any]:
    """Return the fields of a budget that are given."""
    given = {"hard_usd": hard_usd, "soft_usd": soft_usd, "period": period}
    scope: dict[str, Any] = {}
    if model is not None:
        service, _, name = model.partition("/")
        scope = {"service": service or None, "model": name or None}
    return {field: value for field, value in given.items() if value is not None} | scope


def _setting(budgets: Sequence[Budget], name: str, given: dict[str, Any]) -> Call[Budget]:
    """Return the call that makes or changes the budget; raises ``InvalidRequest`` where it makes no sense."""
    found = next((one for one in budgets if name in {one.name, one.id}), None)
    try:
        if found:
            return calls.change_budget(found.id, BudgetChange.model_validate(given))
        return calls.create_budget(NewBudget.model_validate({"name": name, "period": "month"} | given))
    except ValidationError as error:
        raise InvalidRequest("; ".join(_sentence(one) for one in error.errors(include_input=False))) from None


def _named(budgets: Sequence[Budget], name: str) -> Budget:
    for one in budgets:
        if name in {one.name, one.id}:
            return one
    raise BudgetNotFound("There is no budget of this name.")


def _sentence(fault: Any) -> str:
    """Return what is wrong with a field, without what was given."""
    where = ".".join(map(str, fault["loc"]))
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
