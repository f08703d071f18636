"""Stored slots on both databases: every operation once, whichever tiers a window is read from."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.telemetry.operations.repository import TIERS, OperationRepository
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.slot import OperationSlot, merged
from ai_lab.telemetry.operations.store import OperationStore
from ai_lab.telemetry.operations.window import OperationWindow
from ai_lab.telemetry.tables import operation_slots
from tests.telemetry.clocks import Clocks

DAY = 86400
MIDNIGHT = 1_800_000_000 - 1_800_000_000 % DAY


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    yield database
    await database.close()


def counts(window: OperationWindow) -> dict[str, int]:
    return {name: timing.durations.count for (_, name), timing in window.counts.timings.items()}


async def rows(database: Database) -> dict[int, int]:
    """Return the number of rows by tier."""
    statement = select(operation_slots.c.tier, func.count()).group_by(operation_slots.c.tier)
    async with database.reading() as db:
        found = (await db.execute(statement)).all()
    return {row[0]: row[1] for row in found}


async def store_slots(database: Database, slots: list[OperationSlot]) -> None:
    rows = [{"tier": 10, "start": s.start, "writer_id": s.writer_id, "counts": s.encode()} for s in slots]
    for first in range(0, len(rows), 1000):
        async with database.transaction() as db:
            await OperationRepository(db).add(rows[first : first + 1000])


def slot(start: int, writer_id: str, name: str = "work", times: int = 1) -> OperationSlot:
    made = OperationSlot(start, writer_id)
    for _ in range(times):
        made.timing("function", name).durations.record(0.01)
    made.covered_seconds = 10.0
    return made


async def test_flushed_and_running_slots_are_one_window(database: Database) -> None:
    clocks = Clocks()
    operations = clocks.operations()
    store = OperationStore(operations, database)
    for number in range(100):
        operations.record("http", "GET /", 0.01)
        clocks.pass_by(3)
        if number % 7 == 0:
            await store.flush()
        assert counts(await store.window(clocks.wall - 3600, clocks.wall)) == {"GET /": number + 1}
    assert len(operations.readable()) < 5


async def test_flushing_the_same_again_changes_nothing(database: Database) -> None:
    """As after a commit whose answer was lost."""
    clocks = Clocks()
    operations = clocks.operations()
    store = OperationStore(operations, database)
    operations.record("http", "GET /", 0.01)
    clocks.pass_by(400)
    slots = operations.finished()
    await store_slots(database, slots)
    await store.roll_up(clocks.wall)
    await store.flush()
    assert operations.finished() == []
    assert counts(await store.window(clocks.wall - 3600, clocks.wall)) == {"GET /": 1}


async def test_what_is_stored_and_not_yet_forgotten_counts_once(database: Database) -> None:
    """After a commit whose answer was lost, until the next flush; also when it is summed up meanwhile."""
    clocks = Clocks()
    operations = clocks.operations()
    store = OperationStore(operations, database)
    operations.record("http", "GET /", 0.01)
    clocks.pass_by(400)
    await store_slots(database, operations.finished())
    operations.record("http", "GET /", 0.01)
    clocks.pass_by(5)
    for _ in range(2):
        window = await store.window(clocks.wall - 3600, clocks.wall)
        assert counts(window) == {"GET /": 2}
        assert window.covered_seconds == 405
        await store.roll_up(clocks.wall)


async def test_a_failed_flush_loses_nothing(database: Database) -> None:
    clocks = Clocks()
    operations = clocks.operations()
    store = OperationStore(operations, database)
    operations.record("http", "GET /", 0.01)
    clocks.pass_by(30)
    flush = asyncio.create_task(store.flush())
    await asyncio.sleep(0)
    flush.cancel()
    await asyncio.wait({flush})
    assert counts(await store.window(clocks.wall - 3600, clocks.wall)) == {"GET /": 1}
    await store.flush()
    assert counts(await store.window(clocks.wall - 3600, clocks.wall)) == {"GET /": 1}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough)])
async def test_any_window_holds_exactly_its_slots(database: Database, seed: int) -> None:
    """Two and a half days of two writers, one of which stopped: with sums, while they are made, and after a purge."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    now = MIDNIGHT + int(2.6 * DAY) + chance.randrange(DAY // 10)
    slots = [
        slot(chance.randrange(MIDNIGHT, now, 10), writer, chance.choice("abc"), chance.randint(1, 3))
        for writer, number in (("one", 900), ("two", 300))
        for _ in range(number)
    ]
    slots = list({(one.writer_id, one.start): one for one in slots}.values())
    await store_slots(database, slots)
    store = OperationStore(Operations(), database)

    async def check(since: float) -> None:
        window = await store.window(since, now)
        inside = [one for one in slots if window.start <= one.start < now]
        assert window.start <= since
        wanted = Counter[str]()
        for one in inside:
            wanted += Counter({name: timing.durations.count for (_, name), timing in one.timings.items()})
        assert counts(window) == wanted, since

    moments = [
        now - 1,
        now - 3600,
        now - DAY,
        MIDNIGHT + 5,
        MIDNIGHT,
        *(chance.uniform(MIDNIGHT, now) for _ in range(15)),
    ]
    await check(moments[3])
    await store.roll_up(now)
    assert (await rows(database)).keys() == set(TIERS)
    for since in moments:
        await check(since)
        assert (await store.window(since, now)).start > since - 10 or since < now - 2 * 3600
    before = await rows(database)
    await store.roll_up(now)
    assert await rows(database) == before
    await store.purge(now)
    assert (await rows(database))[10] < before[10]
    for since in moments:
        await check(since)
    async with database.reading() as db:
        oldest = [await OperationRepository(db).oldest(tier) for tier in TIERS]
    assert oldest[0] is not None
    assert now - 2 * 3600 - 300 <= oldest[0]
    assert oldest[1] is not None
    assert now - 48 * 3600 - 3600 <= oldest[1]


@pytest.mark.parametrize(
    ("hours", "step"), [(1.99, 10), (24, 300), (47.9, 300), (49.1, 3600), (167, 3600), (720, 86400)]
)
async def test_a_window_begins_at_the_edge_of_the_finest_slots_kept(
    database: Database, hours: float, step: int
) -> None:
    now = MIDNIGHT + 12345.6
    window = await OperationStore(Operations(), database).window(now - hours * 3600, now)
    assert (window.start % step, window.end) == (0, now)
    assert now - hours * 3600 - step < window.start <= now - hours * 3600


async def test_sums_equal_those_made_anew_from_the_slots(database: Database) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    slots = [slot(MIDNIGHT + 10 * number, "one", chance.choice("abc")) for number in range(DAY // 10)]
    await store_slots(database, slots)
    await OperationStore(Operations(), database).roll_up(MIDNIGHT + DAY + 100)
    async with database.reading() as db:
        found = (await db.execute(select(operation_slots).where(operation_slots.c.tier > 10))).all()
    assert len(found) == 288 + 24 + 1
    for row in found:
        first = (row.start - MIDNIGHT) // 10
        anew = merged(slots[first : first + row.tier // 10])
        stored = OperationSlot.decode(row.counts)
        assert stored.covered_seconds == anew.covered_seconds == row.tier
        assert {key: (sorted(t.durations.counts().items()), t.failed) for key, t in stored.timings.items()} == {
            key: (sorted(t.durations.counts().items()), t.failed) for key, t in anew.timings.items()
        }


async def test_a_slot_that_comes_late_is_added_to_the_sums(database: Database) -> None:
    """The database was away while others had their sums made, or this process slept."""
    clocks = Clocks(wall=float(MIDNIGHT))
    operations = clocks.operations()
    store = OperationStore(operations, database)
    for name in ("early", "late"):
        operations.record("function", name, 0.01)
        clocks.pass_by(10)
    early, late = operations.finished()
    await store_slots(database, [early])
    operations.forget([early])
    clocks.set_wall(1.5 * DAY)
    await store.roll_up(clocks.wall)
    for _ in range(2):
        assert counts(await store.window(clocks.wall - 40 * 3600, clocks.wall)) == {"early": 1, "late": 1}
        await store.flush()
    assert late.start == early.start + 10
    await store.roll_up(clocks.wall)
    await store.purge(clocks.wall + 3 * DAY)
    assert 10 not in {tier for tier, number in (await rows(database)).items() if number > 1}
    assert counts(await store.window(clocks.wall - 4 * DAY, clocks.wall)) == {"early": 1, "late": 1}


async def test_processes_that_sum_up_and_flush_at_once_lose_nothing(database: Database) -> None:
    other = Database(database.url)
    clocks = Clocks(wall=float(MIDNIGHT))
    stores = [(one := clocks.operations(), OperationStore(one, base)) for base in (database, other, database)]
    now = MIDNIGHT + DAY + 100
    try:
        for number in range(8):
            for operations, _ in stores:
                for _ in range(5):
                    operations.record("function", "work", 0.01)
            clocks.pass_by(10)
            if number == 4:
                clocks.set_wall(7200)
            flushes = [store.flush() for _, store in stores]
            await asyncio.gather(*flushes, stores[0][1].roll_up(now), stores[1][1].roll_up(now))
        for since in (MIDNIGHT, MIDNIGHT + 10 - 300 * 60):
            assert counts(await stores[2][1].window(since, now)) == {"work": 8 * 3 * 5}
    finally:
        await other.close()


async def test_nothing_is_removed_before_it_is_summed_up(database: Database) -> None:
    store = OperationStore(Operations(), database)
    await store_slots(database, [slot(MIDNIGHT, "one"), slot(MIDNIGHT + 20, "two")])
    now = MIDNIGHT + 10 * DAY
    await store.purge(now)
    assert await rows(database) == {10: 2}
    await store.roll_up(now)
    await store.purge(now)
    assert await rows(database) == {86400: 2}
    assert counts(await store.window(MIDNIGHT, now)) == {"work": 2}
    await store.purge(now + 800 * DAY)
    assert await rows(database) == {}


async def test_damaged_rows_are_left_out_and_said(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    store = OperationStore(Operations(), database)
    await store_slots(database, [slot(MIDNIGHT, "one"), slot(MIDNIGHT + 10, "one")])
    async with database.transaction() as db:
        damage = update(operation_slots).where(operation_slots.c.start == MIDNIGHT).values(counts=b"\x01nonsense")
        await db.execute(damage)
    now = MIDNIGHT + DAY + 100
    assert counts(await store.window(MIDNIGHT, now)) == {"work": 1}
    await store.roll_up(now)
    assert counts(await store.window(MIDNIGHT, now)) == {"work": 1}
    assert "left out" in caplog.text


async def test_coverage_is_the_time_in_which_a_process_ran(database: Database) -> None:
    clocks = Clocks(wall=float(MIDNIGHT))
    first = clocks.operations()
    store = OperationStore(first, database)
    for _ in range(180):
        clocks.pass_by(10)
        await store.flush()
    await store.flush(everything=True)
    clocks.pass_by(1800)  # nobody ran
    second = clocks.operations()
    store = OperationStore(second, database)
    clocks.pass_by(1800)
    await store.flush()
    clocks.pass_by(1800)
    window = await store.window(MIDNIGHT, clocks.wall)
    assert window.covered_seconds == 1800 + 3600
    assert window.coverage_percent == 75
    await store.flush(everything=True)
    await store.roll_up(clocks.wall + 100)
    assert (await store.window(MIDNIGHT, clocks.wall)).covered_seconds == 1800 + 3600
