"""All limits on spending: they are looked at before each request, with what is really spent."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta

from ai_lab.clock import new_id, now
from ai_lab.costs import budget_repository as repository
from ai_lab.costs.limits import Limit, nanousd_or_none, owed
from ai_lab.costs.prices import usd
from ai_lab.costs.repository import Row, spent
from ai_lab.costs.schemas import Budget, BudgetChange, BudgetList, NewBudget
from ai_lab.database import Database
from ai_lab.errors import BudgetNotFound, Conflict, InvalidRequest, LabError

#: Other servers on the same database change budgets too: after this long they are read again.
_LOOK_AGAIN_SECONDS = 1.0
_MOST = 100
#: Ids of budgets that were made with an idempotency key are made of it.
_KEYED = uuid.UUID("b0a5d1a6-52a5-4f5e-9f5c-0d1f6a3c7e21")

logger = logging.getLogger(__name__)


class Budgets:
    """Knows all budgets, so that a request is not held up where none applies.

    Args:
        database: of the lab.
        settle: writes the charges that wait, so that what is shown is all.
        stuck: returns those that cannot be written now; they are spent all the same.
    """

    def __init__(
        self, database: Database, settle: Callable[[], Awaitable[bool]], stuck: Callable[[], Sequence[Row]]
    ) -> None:
        self._database = database
        self._settle = settle
        self._stuck = stuck
        self._limits: Sequence[Limit] | None = None
        self._read_at = 0.0
        self._turn = asyncio.Lock()

    def apply(self, service: str, model: str) -> bool:
        """Return whether a known budget counts this model, so that its charges must be there at once."""
        return any(limit.applies(service, model) for limit in self._limits or ())

    async def admit(self, service: str, model: str, is_price_known: Callable[[], Awaitable[bool]]) -> list[str]:
        """Return a warning for each soft limit that is reached.

        Raises:
            BudgetExceeded: a hard limit is reached.
            PriceUnknown: one holds, and nobody knows what the model costs.
            DatabaseUnavailable: what is spent cannot be read, and a hard limit holds.
        """
        limits = [limit for limit in await self._known() if limit.applies(service, model)]
        hard = next((limit for limit in limits if limit.hard_nanousd is not None), None)
        if not limits:
            return []
        today = now().date()
        try:
            spent_of_each = await self._spent(limits, today)
        except LabError:
            if hard:
                raise
            return []  # nobody is kept from working for the sake of a warning
        warnings = []
        for limit, (used, _) in zip(limits, spent_of_each, strict=True):
            if limit.hard_nanousd is not None and used >= limit.hard_nanousd:
                raise limit.exceeded(used, today)
            if limit.soft_nanousd is not None and used >= limit.soft_nanousd:
                warnings.append(limit.warning(used))
                await self._say_once(limit, used, limit.period_name(today))
        if hard and not await is_price_known():
            raise hard.price_unknown(service, model)
        return warnings

    async def list(self) -> BudgetList:
        """Return all budgets with what is used of them."""
        await self._settle()
        limits = await self._read()
        today = now().date()
        used = await self._spent(limits, today)
        return BudgetList(budgets=[one.shown(*sums, today) for one, sums in zip(limits, used, strict=True)])

    async def get(self, budget_id: str) -> Budget:
        """Return a budget; raises ``BudgetNotFound``."""
        found = next((one for one in (await self.list()).budgets if one.id == budget_id), None)
        if found is None:
            raise _not_found()
        return found

    async def create(self, new: NewBudget, *, idempotency_key: str | None = None) -> Budget:
        """Store a budget; what was spent before in the period that goes on counts already.

        Args:
            new: what it is.
            idempotency_key: the same key again changes nothing and gives the budget that was made with it.

        Raises:
            Conflict: there is one of that name.
            InvalidRequest: there are too many.
        """
        limit = Limit(
            id=str(uuid.uuid5(_KEYED, idempotency_key)) if idempotency_key else new_id(),
            name=new.name,
            period=new.period,
            service=new.service,
            model=new.model,
            soft_nanousd=nanousd_or_none(new.soft_usd),
            hard_nanousd=nanousd_or_none(new.hard_usd),
            warned=None,
            created_at=now(),
        )
        async with self._database.transaction() as db:
            others = [Limit.of(row) for row in await repository.all_budgets(db, to_change=True)]
            if all(other.id != limit.id for other in others):
                if len(others) >= _MOST:
                    raise InvalidRequest(f"There are {_MOST} budgets already. Remove one that is not needed any more.")
                _check_name(limit, others)
                await repository.add_budget(db, asdict(limit))
        return await self.get(limit.id)

    async def change(self, budget_id: str, change: BudgetChange) -> Budget:
        """Change a budget; what was spent before counts for the new definition too.

        Raises:
            BudgetNotFound: there is none with this id.
            Conflict: there is another one of that name.
            InvalidRequest: no limit would be left, or the soft one would be above the hard one.
        """
        given = change.model_dump(exclude_unset=True)
        values = {name: value for name, value in given.items() if not name.endswith("_usd")} | {"warned": None}
        for kind in ("soft", "hard"):
            if f"{kind}_usd" in given:
                values[f"{kind}_nanousd"] = nanousd_or_none(given[f"{kind}_usd"])
        async with self._database.transaction() as db:
            limits = {row["id"]: Limit.of(row) for row in await repository.all_budgets(db, to_change=True)}
            if budget_id not in limits:
                raise _not_found()
            limit = replace(limits.pop(budget_id), **values)
            limit.check()
            _check_name(limit, list(limits.values()))
            await repository.change_budget(db, budget_id, values)
        return await self.get(budget_id)

    async def remove(self, budget_id: str) -> None:
        """Delete a budget; raises ``BudgetNotFound``."""
        async with self._database.transaction() as db:
            if not await repository.remove_budget(db, budget_id):
                raise _not_found()
        await self._read()

    async def _known(self) -> Sequence[Limit]:
        """Return all budgets as far as this server knows; other servers' changes are seen a second later."""
        if self._limits is not None and not self._is_old():
            return self._limits
        async with self._turn:
            if self._limits is not None and not self._is_old():  # somebody else has read them meanwhile
                return self._limits
            try:
                return await self._read()
            except LabError:
                if self._limits is None:
                    raise
                return self._limits

    def _is_old(self) -> bool:
        """Return whether another server may have changed them; an SQLite file has one server."""
        return not self._database.is_sqlite and time.monotonic() - self._read_at > _LOOK_AGAIN_SECONDS

    async def _read(self) -> Sequence[Limit]:
        read_at = time.monotonic()
        async with self._database.reading() as db:
            limits = [Limit.of(row) for row in await repository.all_budgets(db)]
        if read_at >= self._read_at:  # else a later look has come back before this one
            self._limits, self._read_at = limits, read_at
        return limits

    async def _spent(self, limits: Sequence[Limit], today: date) -> Sequence[tuple[int, int]]:
        """Return nano-dollars and the number of unknown costs in the period of each budget."""
        if not limits:
            return []
        sums = []
        stuck = self._stuck()
        async with self._database.reading() as db:
            for limit in limits:
                last = limit.next_day(today) - timedelta(days=1)
                used, unknown = await spent(db, limit.service, limit.model, limit.first_day(today), last)
                sums.append((used + owed(limit, stuck), unknown))
        return sums

    async def _say_once(self, limit: Limit, used: int, period: str) -> None:
        """Log the first time in a period that a soft limit is reached, on one of all servers."""
        if limit.warned == period:
            return
        self._limits = [replace(one, warned=period) if one.id == limit.id else one for one in self._limits or ()]
        try:
            async with self._database.transaction() as db:
                is_new = await repository.note_warning(db, limit.id, period)
        except LabError:
            is_new = True  # better twice than never
        if is_new:
            amounts = {"used_usd": usd(used), "soft_usd": usd(limit.soft_nanousd or 0)}
            logger.warning("the soft limit of a budget is reached", extra={"budget": limit.name, **amounts})


def _check_name(limit: Limit, others: Sequence[Limit]) -> None:
    if any(other.name == limit.name for other in others):
        raise Conflict("There is a budget of this name already. Change that one, or choose another name.", param="name")


def _not_found() -> BudgetNotFound:
    return BudgetNotFound("There is no budget with this id. GET /budgets lists all of them.")
