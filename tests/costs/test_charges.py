"""Charges and their sums: exact, once each, and unknown where nobody knows."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.costs import Costs
from ai_lab.costs.schemas import GroupBy, NewBudget
from ai_lab.database import Database
from ai_lab.errors import PriceUnknown
from ai_lab.providers import Usage
from ai_lab.settings import PriceEntry, Settings
from tests.costs.attempts import COST_NANOUSD, PRICES, attempted, charges, sums
from tests.security.canary import new_secret

#: What is no matter of the database.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    yield database
    await database.close()


@pytest.fixture
async def costs(database: Database) -> AsyncIterator[Costs]:
    costs = Costs(Settings(prices=PRICES), database, watts=lambda: None)
    yield costs
    await costs.close()


async def test_charges_wait_for_each_other_and_are_written_once(costs: Costs, database: Database) -> None:
    repeated = attempted(attempt_id="the-same")
    for one in (repeated, repeated, attempted(), attempted(model="small", alias="fast")):
        await costs.charge(one)
    assert await charges(database) == [], "no budget counts them: they wait in the background"
    await costs.flush()
    await costs.charge(repeated)
    await costs.charge(attempted())
    await costs.flush()
    assert await sums(database) == (4 * COST_NANOUSD, 4, 4 * COST_NANOUSD, 4)
    assert costs._batch.lost == 0


@ON_SQLITE
async def test_what_is_written_says_how_it_was_reckoned(costs: Costs, database: Database) -> None:
    usage = Usage(1000, 100, cached_tokens=400, reasoning_tokens=60)
    charge = await costs.charge(attempted("openai", "gpt-4o-mini", usage=usage, session_id="talk"))
    # 600 * 0.15 + 400 * 0.075 + 100 * 0.6 = 180 millionths of a dollar
    assert charge.cost_nanousd == 180_000
    await costs.flush()
    (row,) = await charges(database)
    assert row["cost_nanousd"] == 180_000
    assert row["price"] == {"input": 0.15, "cached_input": 0.075, "output": 0.6}
    assert row["price_source"] == "genai-prices"
    assert row["price_version"]
    counted = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cache_write_tokens")
    assert [row[name] for name in counted] == [1000, 400, 100, 60, None]


@ON_SQLITE
async def test_unknown_is_never_nothing(costs: Costs, database: Database) -> None:
    assert (await costs.charge(attempted("elsewhere", "model"))).cost_nanousd is None
    assert (await costs.charge(attempted(usage=None))).cost_nanousd is None
    assert (await costs.charge(attempted(usage=Usage(10, None)))).cost_nanousd is None
    summary = await costs.summary("service")
    assert summary.totals.cost_usd is None
    assert summary.totals.unknown_costs == summary.totals.attempts == 3
    await costs.charge(attempted())
    summary = await costs.summary("service")
    assert summary.totals.cost_usd == 0.000_03
    known = {group.key: (group.cost_usd, group.unknown_costs) for group in summary.groups}
    assert known == {"paid": (0.000_03, 2), "elsewhere": (None, 1)}
    assert {row["cost_nanousd"] for row in await charges(database)} == {None, COST_NANOUSD}


@ON_SQLITE
async def test_a_service_that_made_no_token_is_owed_nothing(costs: Costs) -> None:
    charge = await costs.charge(attempted("elsewhere", "model", usage=None, is_answered=False))
    assert (charge.cost_nanousd, charge.price_source) == (0, "unanswered")


@ON_SQLITE
async def test_models_on_this_machine_cost_electricity_of_their_own(database: Database) -> None:
    settings = Settings(prices=PRICES, electricity_price=0.3)
    costs = Costs(settings, database, watts=lambda: 360.0)
    charge = await costs.charge(attempted("ollama", "llama", is_local=True, total_ms=10_000, local_load=2))
    # 360 W * 10 s / 2 answers = 1800 J = 0.0005 kWh, at 0.30 dollars: 0.00015 dollars
    assert (charge.cost_nanousd, charge.price_source) == (0, "local")
    assert (charge.energy_joules, charge.electricity_nanousd) == (1800, 150_000)
    paid = await costs.charge(attempted(total_ms=10_000))
    assert (paid.energy_joules, paid.electricity_nanousd) == (None, None)
    totals = (await costs.summary("day")).totals
    assert (totals.energy_kwh, totals.electricity_usd, totals.unknown_electricity) == (0.0005, 0.00015, 0)
    assert totals.cost_usd == 0.000_03, "electricity is no part of it"
    await costs.close()


@pytest.mark.parametrize(
    ("settings", "watts", "expected"),
    [
        (Settings(), None, (None, None)),
        (Settings(electricity_price=0.3), None, (None, None)),
        (Settings(), 100.0, (100, None)),
        (Settings(local_watts=50), 100.0, (50, None)),
        (Settings(electricity_price=0.36), float("nan"), (None, None)),
        (Settings(electricity_price=0.36), 100.0, (100, 10_000)),
    ],
)
async def test_electricity_that_nobody_measures_or_prices_is_unknown(
    settings: Settings, watts: float | None, expected: tuple[float | None, int | None], tmp_path: object
) -> None:
    costs = Costs(settings, Database(make_url(f"sqlite+aiosqlite:///{tmp_path}/none.sqlite")), watts=lambda: watts)
    used = costs._electricity.used(attempted("echo", "echo", is_local=True))
    assert used == expected


@ON_SQLITE
async def test_unknown_electricity_is_counted(costs: Costs) -> None:
    await costs.charge(attempted("echo", "echo", is_local=True, usage=None))
    totals = (await costs.summary("service")).totals
    assert (totals.cost_usd, totals.unknown_costs) == (0, 0)
    assert (totals.energy_kwh, totals.electricity_usd, totals.unknown_electricity) == (None, None, 1)


async def test_groups(database: Database) -> None:
    expected: dict[GroupBy, list[str | None]] = {
        "service": ["paid", "cheap"],
        "model": ["paid/large", "paid/small", "cheap/small"],
        "day": ["2026-01-31", "2026-02-01", "2026-02-02"],
        "month": ["2026-01", "2026-02"],
        "source": ["chat"],
        "alias": [None, "fast"],
    }
    costs = Costs(Settings(prices=PRICES | {"cheap/*": PriceEntry(input=0.1, output=0)}), database, watts=lambda: None)
    january = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    for second in (1, 2):
        await costs.charge(attempted(at=january))
        await costs.charge(attempted(model="small", at=january + timedelta(seconds=second), alias="fast"))
    await costs.charge(attempted("cheap", "small", at=january + timedelta(days=2), usage=Usage(7, 3)))
    for group_by, keys in expected.items():
        everything = await costs.summary(group_by)
        assert [group.key for group in everything.groups] == keys
        assert sum(group.attempts for group in everything.groups) == everything.totals.attempts == 5
        assert sum(group.cost_usd or 0 for group in everything.groups) == pytest.approx(0.000_120_7)
        in_days = await costs.summary(group_by, date(2026, 2, 1), date(2026, 2, 1))
        assert (in_days.totals.attempts, in_days.totals.prompt_tokens, in_days.totals.cost_usd) == (2, 20, 0.000_06)
    await costs.close()


@ON_SQLITE
async def test_nothing_was_spent_where_there_is_nothing(costs: Costs) -> None:
    summary = await costs.summary("model")
    assert (summary.totals.attempts, summary.totals.cost_usd, summary.groups) == (0, 0, [])


async def test_export_has_a_line_for_each_charge_and_no_formula(costs: Costs) -> None:
    first = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(1001):
        await costs.charge(attempted(at=first + timedelta(seconds=number), attempt_id=f"{number:04}"))
    await costs.charge(attempted("elsewhere", "=cmd|' /C calc'!A1", at=first + timedelta(days=1), session_id="\t+1"))
    text_ = "".join([piece async for piece in await costs.export()])
    lines = list(csv.DictReader(io.StringIO(text_, newline="")))
    assert [line["id"] for line in lines[:1001]] == [f"{number:04}" for number in range(1001)]
    assert sum(Decimal(line["cost_usd"]) for line in lines[:1001]) == Decimal(1001 * COST_NANOUSD) / 10**9
    assert lines[0]["price_output_usd_per_million"] == "2.0"
    assert lines[0]["is_local"] == "false"
    assert lines[-1]["model"].startswith("'=")
    assert lines[-1]["session_id"].startswith("'\t+")
    assert lines[-1]["cost_usd"] == ""
    within = "".join([piece async for piece in await costs.export(date(2026, 3, 2), date(2026, 3, 2))])
    assert len(within.splitlines()) == 2


async def test_repricing_gives_the_unknown_a_cost_and_keeps_the_sums(costs: Costs, database: Database) -> None:
    await costs.charge(attempted("elsewhere", "model"))
    await costs.charge(attempted("elsewhere", "model", usage=None))
    await costs.charge(attempted())
    await costs.charge(attempted("ollama", "llama", is_local=True))
    await costs.charge(attempted("elsewhere", "model", is_answered=False, usage=None))
    for _ in range(600):  # more than one transaction takes
        await costs.charge(attempted(model="small"))
    await costs.flush()
    later = Costs(
        Settings(prices={"elsewhere/*": PriceEntry(input=5, output=5), "paid/small": PriceEntry(input=2, output=2)}),
        database,
        watts=lambda: None,
    )
    planned = await later.reprice(dry_run=True)
    assert (await sums(database))[0] == 601 * COST_NANOUSD, "nothing has changed yet"
    done = await later.reprice()
    assert done.model_dump(exclude={"dry_run"}) == planned.model_dump(exclude={"dry_run"})
    assert (done.looked_at, done.changed, done.newly_known, done.still_unknown) == (603, 601, 1, 1)
    # 100,000 for the unknown one, 30,000 that no price is known for any more, 600 * 40,000
    assert await sums(database) == (24_130_000, 605, 24_130_000, 605)
    assert done.before_usd == 601 * COST_NANOUSD / 10**9
    assert done.after_usd == 0.024_13
    assert (await later.reprice()).changed == 0
    assert (await later.summary("service")).totals.unknown_costs == 1
    sources = {row["service"]: row["price_source"] for row in await charges(database)}
    assert sources["ollama"] == "local"
    await later.close()


async def test_what_the_service_says_wins_over_every_price_and_stays(costs: Costs, database: Database) -> None:
    told = Usage(10, 10, cost_nanousd=1_234)
    for one in (
        attempted(usage=told),
        attempted("elsewhere", "model", usage=told),
        attempted(usage=told, is_answered=False),
    ):
        await costs.charge(one)
    assert (await costs.reprice()).looked_at == 0
    found = {
        (row["outcome"], row["cost_nanousd"], row["price_source"], row["price"]) for row in await charges(database)
    }
    assert found == {("ok", 1_234, "service", None), ("failed", 0, "unanswered", None)}
    assert await sums(database) == (2_468, 3, 2_468, 3)
    lines = list(csv.DictReader(io.StringIO("".join([piece async for piece in await costs.export()]), newline="")))
    told_lines = [line for line in lines if line["outcome"] == "ok"]
    assert {(line["price_source"], line["cost_usd"], line["price_input_usd_per_million"]) for line in told_lines} == {
        ("service", "0.000001234", "")
    }


async def test_repricing_is_for_the_days_that_are_named(costs: Costs, database: Database) -> None:
    for day in (1, 2, 3):
        await costs.charge(attempted("elsewhere", "model", at=datetime(2026, 5, day, 12, tzinfo=UTC)))
    await costs.flush()
    later = Costs(Settings(prices={"elsewhere/*": PriceEntry(input=1, output=0)}), database, watts=lambda: None)
    assert (await later.reprice(date(2026, 5, 2), date(2026, 5, 2))).changed == 1
    assert [row["cost_nanousd"] for row in await charges(database)] == [None, 10_000, None]
    assert (await later.reprice(date(2026, 5, 3), date.max)).changed == 1
    await later.close()


async def test_two_who_reprice_at_once_change_the_sums_once(costs: Costs, database: Database) -> None:
    for _ in range(20):
        await costs.charge(attempted("elsewhere", "model"))
    await costs.flush()
    later = [
        Costs(Settings(prices={"elsewhere/*": PriceEntry(input=1, output=1)}), database, watts=lambda: None)
        for _ in range(3)
    ]
    done = await asyncio.gather(*(one.reprice() for one in later))
    assert sorted(one.changed for one in done) == [0, 0, 20]
    assert await sums(database) == (400_000, 20, 400_000, 20)
    for one in later:
        await one.close()


@ON_SQLITE
async def test_figures_that_no_service_means_are_kept_out_of_the_way(costs: Costs, database: Database) -> None:
    await costs.charge(attempted(usage=Usage(10**12, 5)))
    await costs.charge(attempted())
    await costs.flush()
    assert len(await charges(database)) == 2


@ON_SQLITE
async def test_a_charge_and_its_sum_are_one_thing(costs: Costs, database: Database) -> None:
    async with database.transaction() as db:
        await db.execute(text("ALTER TABLE cost_days RENAME TO hidden"))
    await costs.charge(attempted())
    assert not await costs.flush()
    assert await charges(database) == []
    async with database.transaction() as db:
        await db.execute(text("ALTER TABLE hidden RENAME TO cost_days"))
    assert await costs.flush()
    assert await sums(database) == (COST_NANOUSD, 1, COST_NANOUSD, 1)


@ON_SQLITE
async def test_a_key_in_the_place_of_a_model_is_not_kept(costs: Costs, database: Database) -> None:
    """Services that a key makes usable are asked for names that they do not list."""
    secret = new_secret("sk-proj-")
    await costs.charge(attempted(model=secret))
    await costs.flush()
    assert "CANARY" not in str(await charges(database))
    await costs.budgets.create(NewBudget(name="all", period="day", hard_usd=1))
    with pytest.raises(PriceUnknown) as refused:
        await costs.admit("elsewhere", secret, is_local=False)
    assert "CANARY" not in refused.value.detail
