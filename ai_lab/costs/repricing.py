"""History with the prices that are known today: what was unknown gets a cost, what was wrong gets the right one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ai_lab.costs.price_list import PriceList
from ai_lab.costs.prices import BY_SERVICE, LOCAL, UNANSWERED, usd
from ai_lab.costs.repository import Row, add_to_days, change_prices, charges_after, day_of
from ai_lab.costs.schemas import Repricing
from ai_lab.database import Database
from ai_lab.providers import Usage

_PAGE = 500
_NEVER_TOUCHED = frozenset({LOCAL.source, UNANSWERED.source, BY_SERVICE})
_PRICED = ("price", "price_source", "price_version", "cost_nanousd")


@dataclass
class _Tally:
    looked_at: int = 0
    changed: int = 0
    newly_known: int = 0
    still_unknown: int = 0
    before_nanousd: int = 0
    after_nanousd: int = 0


async def reprice(
    database: Database, prices: PriceList, start: date | None, end: date | None, *, dry_run: bool
) -> Repricing:
    """Reckon charges again, some hundred in one transaction, together with the sums of their days.

    A cost that is known stays where no price is known any more. Each price is the one at the time of the charge, as
    today's list has it; prices of the settings hold for all times.
    """
    tally = _Tally()
    await prices.load()  # not while others wait for the database
    after: tuple[datetime, str] | None = None
    while True:
        async with database.reading() if dry_run else database.transaction() as db:
            rows = await charges_after(db, after, start, end, limit=_PAGE, to_change=not dry_run)
            changes = [(row, new) for row in rows if (new := await _reckoned(row, prices, tally)) is not None]
            if changes and not dry_run:
                await change_prices(
                    db, [{"charge": new["id"], **{name: new[name] for name in _PRICED}} for _, new in changes]
                )
                await add_to_days(db, [_difference(row, new) for row, new in changes])
        if len(rows) < _PAGE:
            break
        after = rows[-1]["at"], rows[-1]["id"]
    return Repricing(
        dry_run=dry_run,
        looked_at=tally.looked_at,
        changed=tally.changed,
        newly_known=tally.newly_known,
        still_unknown=tally.still_unknown,
        before_usd=usd(tally.before_nanousd),
        after_usd=usd(tally.after_nanousd),
        difference_usd=usd(tally.after_nanousd - tally.before_nanousd),
    )


async def _reckoned(row: Row, prices: PriceList, tally: _Tally) -> Row | None:
    """Return a charge as it should be; None where it is so already. What it finds is added to ``tally``."""
    if row["price_source"] in _NEVER_TOUCHED:
        return None
    tally.looked_at += 1
    before: int | None = row["cost_nanousd"]
    price = await prices.find(row["service"], row["model"], is_local=row["is_local"], at=row["at"])
    usage = Usage(
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
    )
    # One on this machine had a price of its own in the settings once.
    cost = price.cost_nanousd(usage) if price and price is not LOCAL else None
    tally.before_nanousd += before or 0
    tally.after_nanousd += (before if cost is None else cost) or 0
    if price is None or cost is None:
        tally.still_unknown += before is None
        return None
    new = row | {
        "price": price.units_for(usage.prompt_tokens).as_stored(),
        "price_source": price.source,
        "price_version": price.version,
        "cost_nanousd": cost,
    }
    if all(new[name] == row[name] for name in ("price", "price_source", "cost_nanousd")):
        return None  # a newer version of the list that says the same
    tally.changed += 1
    tally.newly_known += before is None
    return new


def _difference(old: Row, new: Row) -> Row:
    """Return what has to be added to the sums of a day for one of its charges to be another."""
    removed, added = day_of(old), day_of(new)
    return {name: value if isinstance(value, str) else value - removed[name] for name, value in added.items()}
