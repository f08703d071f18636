"""Limits on spending: they hold under concurrency and between servers, and say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import make_url

from ai_lab.clock import new_id, now
from ai_lab.costs import Costs
from ai_lab.costs.limits import Limit
from ai_lab.costs.schemas import BudgetChange, NewBudget, Period
from ai_lab.database import Database
from ai_lab.errors import BudgetExceeded, BudgetNotFound, Conflict, InvalidRequest, PriceUnknown
from ai_lab.providers import Usage
from ai_lab.settings import PriceEntry, Settings
from tests.costs.attempts import COST_NANOUSD, PRICES, attempted, sums

ROOT = Path(__file__).parents[2]
COST_USD = COST_NANOUSD / 10**9
SETTINGS = Settings(prices=PRICES | {"here/*": PriceEntry(input=1, output=2)})

#: What is no matter of the database.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    yield database
    await database.close()


@pytest.fixture
async def costs(database: Database) -> AsyncIterator[Costs]:
    costs = Costs(SETTINGS, database, watts=lambda: None)
    yield costs
    await costs.close()


async def ask(costs: Costs, service: str = "paid", model: str = "large", *, is_local: bool = False) -> list[str]:
    """Ask a model as the gateway does: look at the budget, wait for the answer, pay."""
    warnings = await costs.admit(service, model, is_local=is_local)
    await asyncio.sleep(0.001)
    await costs.charge(attempted(service, model, is_local=is_local))
    return warnings


async def ask_until_refused(costs: Costs, *, clients: int, pause_seconds: float = 0.001) -> int:
    """Return how many requests were answered until the budget refused all clients."""
    answered = 0

    async def client() -> None:
        nonlocal answered
        while True:
            try:
                await ask(costs)
            except BudgetExceeded:
                return
            answered += 1
            await asyncio.sleep(pause_seconds)

    await asyncio.gather(*(client() for _ in range(clients)))
    return answered


async def test_fifty_clients_overspend_by_one_request_each_at_most(costs: Costs, database: Database) -> None:
    await costs.budgets.create(NewBudget(name="all", period="day", hard_usd=60 * COST_USD))
    answered = await ask_until_refused(costs, clients=50)
    assert 60 <= answered < 60 + 50
    assert await sums(database) == (answered * COST_NANOUSD, answered, answered * COST_NANOUSD, answered)
    (budget,) = (await costs.budgets.list()).budgets
    assert budget.state == "hard"
    assert budget.used_usd == answered * COST_NANOUSD / 10**9


_OTHER_SERVER = """
import asyncio, sys
from sqlalchemy.engine import make_url
from ai_lab.costs import Costs
from ai_lab.database import Database
from tests.costs.test_budgets import SETTINGS, ask_until_refused

async def main():
    database = Database(make_url(sys.argv[1]))
    costs = Costs(SETTINGS, database, watts=lambda: None)
    print("ready", flush=True)
    sys.stdin.readline()
    print(await ask_until_refused(costs, clients=10))
    await costs.close()
    await database.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_two_servers_share_a_budget(costs: Costs, database: Database, database_url: str) -> None:
    await costs.budgets.create(NewBudget(name="all", period="day", hard_usd=60 * COST_USD))
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OTHER_SERVER, database_url), stdin=pipe, stdout=pipe, cwd=ROOT
    )
    assert other.stdout
    assert await other.stdout.readline() == b"ready\n"
    here = asyncio.create_task(ask_until_refused(costs, clients=10))
    told, _ = await other.communicate(b"go\n")
    there = int(told)
    answered = there + await here
    assert 60 <= answered < 60 + 20
    assert await sums(database) == (answered * COST_NANOUSD, answered, answered * COST_NANOUSD, answered)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_other_servers_see_a_new_budget(costs: Costs, database: Database) -> None:
    other = Costs(SETTINGS, database, watts=lambda: None)
    assert await other.admit("paid", "large", is_local=False) == []
    await costs.budgets.create(NewBudget(name="nothing", period="day", hard_usd=0))
    async with asyncio.timeout(30):
        assert await ask_until_refused(other, clients=1, pause_seconds=0.1)
    await other.close()


@ON_SQLITE
async def test_without_a_budget_nothing_is_read(costs: Costs, database: Database) -> None:
    await ask(costs)
    statements = 0

    def count(*_told: object) -> None:
        nonlocal statements
        statements += 1

    for engine in (database._reader, database._writer):
        event.listen(engine.sync_engine, "before_cursor_execute", count)
    for _ in range(100):
        await costs.admit("paid", "large", is_local=False)
        await costs.admit("ollama", "llama", is_local=True)
    assert statements == 0


async def test_a_soft_limit_warns_in_every_answer_and_once_in_the_log(
    costs: Costs, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await costs.budgets.create(NewBudget(name="team", period="month", soft_usd=1.5 * COST_USD, hard_usd=1))
    assert await ask(costs) == []
    assert await ask(costs) == []
    with caplog.at_level(logging.WARNING):
        (warning,) = await ask(costs)
        assert await ask(costs)
        other = Costs(SETTINGS, database, watts=lambda: None)
        assert await ask(other)
        await other.close()
    assert warning.startswith("The soft limit of the budget 'team' is reached: $0.00006 of $0.000045 a month for all")
    assert "At $1.00 requests are refused." in warning
    assert [record.message for record in caplog.records] == ["the soft limit of a budget is reached"]


@ON_SQLITE
async def test_a_hard_limit_says_when_it_ends_and_what_to_do(costs: Costs) -> None:
    await costs.budgets.create(NewBudget(name="paid-day", period="day", service="paid", hard_usd=COST_USD))
    await ask(costs)
    with pytest.raises(BudgetExceeded) as refused:
        await ask(costs)
    tomorrow = datetime.combine(now().date() + timedelta(days=1), datetime.min.time(), UTC)
    assert refused.value.status == 402
    assert refused.value.retry_after_seconds == pytest.approx((tomorrow - now()).total_seconds(), abs=5)
    for part in ("'paid-day'", "$0.00003 a day for paid", "are used", f"{tomorrow:%Y-%m-%d} 00:00 UTC", "--hard"):
        assert part in refused.value.detail
    assert await ask(costs, "here", "small") == [], "other services go on"


@ON_SQLITE
async def test_who_is_refused_and_who_is_not(costs: Costs) -> None:
    await costs.budgets.create(NewBudget(name="nothing", period="day", hard_usd=0))
    assert await ask(costs, "ollama", "llama", is_local=True) == []
    with pytest.raises(BudgetExceeded):
        await ask(costs, "here", "priced", is_local=True)  # the settings name a price for what is on this machine
    with pytest.raises(BudgetExceeded) as refused:
        await ask(costs, "elsewhere", "model")
    assert not isinstance(refused.value, PriceUnknown), "the first reason is enough"


@ON_SQLITE
async def test_where_a_price_is_unknown_a_hard_limit_refuses_and_a_soft_one_does_not(costs: Costs) -> None:
    soft = await costs.budgets.create(NewBudget(name="soft", period="day", model="model", soft_usd=1))
    assert await ask(costs, "elsewhere", "model") == []
    await costs.budgets.change(soft.id, BudgetChange(hard_usd=2))
    with pytest.raises(PriceUnknown, match=r"AI_LAB_PRICES='\{\"elsewhere/model\": ") as refused:
        await ask(costs, "elsewhere", "model")
    assert refused.value.status == 402
    (budget,) = (await costs.budgets.list()).budgets
    assert (budget.used_usd, budget.unknown_costs, budget.state) == (0, 1, "fine")


async def test_a_changed_budget_counts_what_was_spent_before(costs: Costs) -> None:
    yesterday = now() - timedelta(days=1)
    for at in (yesterday, now()):
        await costs.charge(attempted(at=at))
        await costs.charge(attempted(model="small", at=at))
    await costs.flush()
    budget = await costs.budgets.create(NewBudget(name="one", period="day", soft_usd=1))
    assert (budget.used_usd, budget.state) == (2 * COST_USD, "fine")
    narrow = await costs.budgets.change(
        budget.id, BudgetChange(service="paid", model="small", hard_usd=COST_USD, soft_usd=None)
    )
    assert (narrow.used_usd, narrow.state, narrow.soft_usd) == (COST_USD, "hard", None)
    with pytest.raises(BudgetExceeded):
        await ask(costs, model="small")
    assert await ask(costs, model="large") == []
    await costs.budgets.remove(budget.id)
    assert await ask(costs, model="small") == []


@ON_SQLITE
async def test_changes_that_make_no_sense_are_refused(costs: Costs) -> None:
    one = await costs.budgets.create(NewBudget(name="one", period="day", soft_usd=1, hard_usd=2))
    two = await costs.budgets.create(NewBudget(name="two", period="day", hard_usd=2))
    with pytest.raises(Conflict):
        await costs.budgets.create(NewBudget(name="one", period="month", hard_usd=2))
    with pytest.raises(Conflict):
        await costs.budgets.change(two.id, BudgetChange(name="one"))
    assert (await costs.budgets.change(two.id, BudgetChange(name="two", period="month"))).period == "month"
    for change in (BudgetChange(soft_usd=3), BudgetChange(soft_usd=None, hard_usd=None)):
        with pytest.raises(InvalidRequest):
            await costs.budgets.change(one.id, change)
    for missing in (costs.budgets.get, costs.budgets.remove):
        with pytest.raises(BudgetNotFound):
            await missing(new_id())
    with pytest.raises(BudgetNotFound):
        await costs.budgets.change(new_id(), BudgetChange(hard_usd=1))


@pytest.mark.parametrize(
    ("period", "today", "first", "following"),
    [
        ("day", date(2026, 12, 31), date(2026, 12, 31), date(2027, 1, 1)),
        ("month", date(2026, 12, 31), date(2026, 12, 1), date(2027, 1, 1)),
        ("month", date(2028, 1, 31), date(2028, 1, 1), date(2028, 2, 1)),
        ("month", date(2028, 2, 29), date(2028, 2, 1), date(2028, 3, 1)),
    ],
)
def test_periods(period: Period, today: date, first: date, following: date) -> None:
    limit = Limit("id", "name", period, None, None, None, 1, None, now())
    assert (limit.first_day(today), limit.next_day(today)) == (first, following)


@ON_SQLITE
async def test_an_answer_that_was_cut_counts_by_what_came(costs: Costs) -> None:
    made = await costs.budgets.create(NewBudget(name="cut", period="day", model="paid/large", hard_usd=0.1))
    cut = replace(attempted(usage=None), estimate=Usage(100_000, 100_000))
    charge = await costs.charge(cut)
    assert (charge.cost_nanousd, charge.estimated_nanousd) == (None, 300_000_000)
    with pytest.raises(BudgetExceeded):
        await ask(costs)
    assert (await costs.budgets.get(made.id)).used_usd == 0.3
    totals = (await costs.summary("model")).totals
    assert (totals.cost_usd, totals.unknown_costs) == (None, 1), "an estimate is no figure to show"


@ON_SQLITE
async def test_what_cannot_be_written_now_is_spent_all_the_same(costs: Costs, database: Database) -> None:
    await costs.budgets.create(NewBudget(name="stuck", period="day", hard_usd=COST_USD))
    file = make_url(database.url).database
    assert file
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(30):
            assert await ask_until_refused(costs, clients=1) >= 1
        other.execute("ROLLBACK")
    await costs.flush()
