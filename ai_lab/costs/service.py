"""What attempts at models cost: reckoned as they end, summed, exported, and reckoned again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from datetime import date, datetime

from ai_lab.costs import repository
from ai_lab.costs.budgets import Budgets
from ai_lab.costs.electricity import Electricity
from ai_lab.costs.export import charges_as_csv
from ai_lab.costs.price_list import PriceList
from ai_lab.costs.prices import BY_SERVICE, UNANSWERED, Price
from ai_lab.costs.repricing import reprice
from ai_lab.costs.schemas import Attempted, Charge, CostSummary, GroupBy, Repricing
from ai_lab.costs.summary import summary_of
from ai_lab.database import Database
from ai_lab.database.batches import Batch
from ai_lab.errors import EmptyRange
from ai_lab.logging import redact_text
from ai_lab.providers import Usage
from ai_lab.settings import Settings

#: An answer is there already: it waits no longer for its charge to be written.
_PATIENCE_SECONDS = 0.5
_LARGEST_COUNT = 2**31 - 1  # what a column holds; a service may say anything


class Costs:
    """Owns charges and budgets.

    Args:
        settings: prices, electricity.
        database: of the lab.
        watts: what this machine draws now, as far as it is measured.
    """

    def __init__(self, settings: Settings, database: Database, *, watts: Callable[[], float | None]) -> None:
        self._database = database
        self._prices = PriceList(settings)
        self._electricity = Electricity(watts, fixed_watts=settings.local_watts, price=settings.electricity_price)
        self._batch: Batch[repository.Row] = Batch(self._write)
        #: Limits on spending: list, get, create, change, remove.
        self.budgets = Budgets(database, settle=self._batch.flush, stuck=self._batch.stuck)

    async def admit(self, service: str, model: str, *, is_local: bool) -> list[str]:
        """Return what the user should hear before a model is asked: soft limits that are reached.

        Nothing is read where no budget applies. Models on this machine cost no money, unless the settings name a price.

        Raises:
            BudgetExceeded: a hard limit is reached.
            PriceUnknown: one holds, and nobody knows what the model costs.
            DatabaseUnavailable: what is spent cannot be read.
        """
        if not self._costs_money(service, model, is_local=is_local):
            return []
        self._prices.begin_to_load(service, model)  # by the time there is an answer, it is there

        async def is_price_known() -> bool:
            return await self.price_of(service, model, is_local=is_local) is not None

        return await self.budgets.admit(service, model, is_price_known)

    async def charge(self, attempted: Attempted) -> Charge:
        """Return what an attempt costs, and write it down: in the background, but at once where a budget counts it.

        A charge that cannot be written now is kept and written later; one of the same id is written once.
        """
        joules, electricity = self._electricity.used(attempted)
        charge = replace(await self._reckoned(attempted), energy_joules=joules, electricity_nanousd=electricity)
        self._batch.add(_row(attempted, charge))
        is_counted = self._costs_money(attempted.service, attempted.model, is_local=attempted.is_local)
        if is_counted and self.budgets.apply(attempted.service, attempted.model):
            await self._batch.settle(_PATIENCE_SECONDS)
        return charge

    async def price_of(
        self, service: str, model: str, *, is_local: bool = False, at: datetime | None = None
    ) -> Price | None:
        """Return what a model costs at a moment (default: now); None: nobody knows."""
        return await self._prices.find(service, model, is_local=is_local, at=at)

    async def typical_usd(self, service: str, model: str, *, is_local: bool = False) -> float | None:
        """Return a figure to put models in order by what they cost; None: nobody knows."""
        price = await self.price_of(service, model, is_local=is_local)
        return None if price is None else float(price.typical_usd())

    async def summary(self, group_by: GroupBy, start: date | None = None, end: date | None = None) -> CostSummary:
        """Return what was spent from one day to another (UTC, both included; None: without end).

        Raises:
            EmptyRange: the first day is after the last.
        """
        _check_days(start, end)
        await self._batch.flush()
        async with self._database.reading() as db:
            groups = await repository.summed(db, group_by, start, end)
            (totals,) = await repository.summed(db, None, start, end)
        return summary_of(group_by, start, end, totals=totals, groups=groups)

    async def export(self, start: date | None = None, end: date | None = None) -> AsyncGenerator[str, None]:
        """Return CSV in pieces: a line of names, then one for each charge, in order of time. Raises ``EmptyRange``."""
        _check_days(start, end)
        await self._batch.flush()
        await self._database.ping()  # what fails later comes after a part of the file
        return charges_as_csv(self._database, start, end)

    async def reprice(self, start: date | None = None, end: date | None = None, *, dry_run: bool = False) -> Repricing:
        """Reckon history again with the price list of today, as its prices were at the time of each charge.

        Args:
            start: first day (UTC).
            end: last day, included.
            dry_run: only say what would change.

        Raises:
            EmptyRange: the first day is after the last.
        """
        _check_days(start, end)
        await self._batch.flush()
        return await reprice(self._database, self._prices, start, end, dry_run=dry_run)

    async def flush(self) -> bool:
        """Write all charges that wait; return whether that was possible."""
        return await self._batch.flush()

    async def close(self) -> None:
        """Write what waits."""
        await self._batch.close()
        await self._prices.close()

    async def _reckoned(self, attempted: Attempted) -> Charge:
        """Return what is to be paid: what the service says, else what its price makes it."""
        usage = attempted.usage
        if not attempted.is_answered:
            return Charge(UNANSWERED.cost_nanousd(usage), price_source=UNANSWERED.source)
        if usage is not None and usage.cost_nanousd is not None:
            return Charge(usage.cost_nanousd, price_source=BY_SERVICE)
        price = await self.price_of(attempted.service, attempted.model, is_local=attempted.is_local, at=attempted.at)
        if price is None:
            return Charge(None)
        cost = price.cost_nanousd(usage)
        return Charge(
            cost,
            estimated_nanousd=price.cost_nanousd(attempted.estimate) if cost is None else None,
            price=price.units_for(usage.prompt_tokens if usage else None).as_stored(),
            price_source=price.source,
            price_version=price.version,
        )

    def _costs_money(self, service: str, model: str, *, is_local: bool) -> bool:
        return not is_local or self._prices.own(service, model) is not None

    async def _write(self, rows: Sequence[repository.Row]) -> None:
        async with self._database.transaction() as db:
            await repository.add_charges(db, rows)


def _check_days(start: date | None, end: date | None) -> None:
    if start and end and start > end:
        raise EmptyRange


def _row(attempted: Attempted, charge: Charge) -> repository.Row:
    usage = attempted.usage or Usage()
    return {
        "id": attempted.id,
        "call_id": attempted.call_id,
        "at": attempted.at,
        "source": attempted.source,
        "service": attempted.service,
        "model": redact_text(attempted.model),  # some services take any name, a key in the wrong place, too
        "alias": attempted.alias,
        "session_id": attempted.session_id,
        "is_local": attempted.is_local,
        "outcome": attempted.outcome,
        "prompt_tokens": _count(usage.prompt_tokens),
        "cached_tokens": _count(usage.cached_tokens),
        "cache_write_tokens": _count(usage.cache_write_tokens),
        "completion_tokens": _count(usage.completion_tokens),
        "reasoning_tokens": _count(usage.reasoning_tokens),
        "price": charge.price,
        "price_source": charge.price_source,
        "price_version": charge.price_version,
        "cost_nanousd": charge.cost_nanousd,
        "estimated_nanousd": charge.estimated_nanousd,
        "total_ms": attempted.total_ms,
        "energy_joules": charge.energy_joules,
        "electricity_nanousd": charge.electricity_nanousd,
    }


def _count(tokens: int | None) -> int | None:
    return None if tokens is None else max(0, min(tokens, _LARGEST_COUNT))
