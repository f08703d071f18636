import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.database.setup import prepare_database
from ai_lab.errors import DatabaseUnavailable
from ai_lab.telemetry.history import service as history_module
from ai_lab.telemetry.history.series import Series, series
from ai_lab.telemetry.history.service import History
from tests.telemetry.history_writer import BATCH
from tests.telemetry.recorded import BEGIN_AT, CPU, HOME, ROOT, Recorded, assert_same, made_anew, moment

ROOT_FOLDER = Path(__file__).resolve().parent.parent.parent
HOUR, DAY = 3600, 86400


@pytest.fixture
async def recorded(database_url: str) -> AsyncIterator[Recorded]:
    database = Database(make_url(database_url))
    yield Recorded(database)
    await database.close()


async def write(history: History, start: int, end: int, *, step: int = 5, value: float = 1.0) -> None:
    for number, second in enumerate(range(start, end, step)):
        history.add(moment(second), {CPU: value})
        if number % 500 == 0:
            await history.flush()
    await history.flush()


@pytest.mark.parametrize("seed", range(5))
async def test_rollups_equal_those_made_anew_from_the_samples(recorded: Recorded, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    history, second = recorded.history(), 0.0
    while second < 3 * HOUR:
        second += chance.choice([1, 5.3, 40, 400, *[5] * 30])
        late = chance.choice([0, 0, 0, 0, 0, 3700]) if second > 4000 else 0
        values = {name: chance.choice([chance.uniform(-1e9, 1e9), chance.randint(0, 9)]) for name in (CPU, ROOT, HOME)}
        history.add(moment(second - late), values)
        what = chance.random()
        if what < 0.05:
            await history.flush()
        elif what < 0.09:
            await history.roll_up(moment(second))
        elif what < 0.10:
            await history.flush()
            history = recorded.history()  # a restart in the middle of a minute
    await history.roll_up(moment(second))
    assert len(await recorded.samples()) > 1000
    assert_same(await recorded.rollups(), made_anew(await recorded.samples(), BEGIN_AT + int(second)))


async def test_nothing_is_rolled_up_before_it_is_over(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 150)
    await history.roll_up(moment(149))
    assert sorted(start - BEGIN_AT for _, _, start in await recorded.rollups()) == [0, 60]


async def test_a_fresh_process_makes_up_for_what_the_last_one_left(recorded: Recorded) -> None:
    await write(recorded.history(), 0, 2 * HOUR)  # and then it died, without any roll-up
    await recorded.history().roll_up(moment(2 * HOUR))
    assert_same(await recorded.rollups(), made_anew(await recorded.samples(), BEGIN_AT + 2 * HOUR))


async def test_rolling_up_again_changes_nothing(recorded: Recorded) -> None:
    await write(recorded.history(), 0, HOUR)
    await recorded.history().roll_up(moment(HOUR))
    before = await recorded.rollups()
    await recorded.history().roll_up(moment(HOUR))
    assert await recorded.rollups() == before


async def test_a_purge_keeps_what_was_made_of_the_samples(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 3 * HOUR, step=10, value=2.0)
    everything = made_anew(await recorded.samples(), BEGIN_AT + 3 * HOUR)
    await recorded.history().purge(moment(DAY + 2 * HOUR + 1800))  # never rolled up before
    assert {at - BEGIN_AT for _, at in await recorded.samples()} == set(range(2 * HOUR, 3 * HOUR, 10))
    gone = {key: figures for key, figures in everything.items() if key[2] < BEGIN_AT + 2 * HOUR}
    assert_same(await recorded.rollups(), gone)
    await history.roll_up(moment(3 * HOUR))
    assert_same(await recorded.rollups(), everything)


async def test_each_level_is_purged_by_its_own_time(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, HOUR, step=10)
    await history.roll_up(moment(HOUR))
    for days, left in ((13, {60, 3600}), (15, {3600}), (729, {3600}), (731, set())):
        await recorded.history().purge(moment(days * DAY + HOUR))
        assert {tier for tier, _, _ in await recorded.rollups()} == left
    assert await history.known() == []


async def test_a_clock_that_jumps_far_forward_deletes_nothing(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    history = recorded.history()
    await write(history, 0, HOUR, step=10)
    await history.purge(moment(HOUR))
    before = await recorded.samples()
    for _ in range(2):
        await history.purge(moment(9999 * DAY))
    assert await recorded.samples() == before
    assert ["clock was set forward" in record.getMessage() for record in caplog.records] == [True]
    await recorded.history().purge(moment(9999 * DAY))  # a fresh process takes the clock as it is
    assert await recorded.samples() == {}


async def test_a_late_sample_does_not_replace_a_rollup_of_more(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, HOUR)
    await history.roll_up(moment(HOUR))
    await history.purge(moment(DAY + HOUR))
    before = await recorded.rollups()
    history.add(moment(31), {CPU: 99.0})  # the clock was set back by a day
    await history.roll_up(moment(DAY + HOUR))
    assert await recorded.rollups() == before


async def test_a_clock_that_was_set_back_overwrites_nothing(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, HOUR)
    await history.roll_up(moment(HOUR))
    await write(history, HOUR // 2, HOUR, value=100.0)  # the same seconds once more
    await write(history, HOUR // 2 + 2, HOUR // 2 + 60, value=7.0)  # and some in between
    await history.roll_up(moment(HOUR))
    found = await recorded.samples()
    assert set(found.values()) == {1.0, 7.0}
    assert_same(await recorded.rollups(), made_anew(found, BEGIN_AT + HOUR))


async def test_a_clock_that_was_set_forward_leaves_a_gap(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 600)
    await write(history, 2 * HOUR, 2 * HOUR + 600)
    await history.roll_up(moment(2 * HOUR + 600))
    (found,) = (await history.query(CPU.name, start=moment(0), end=moment(2 * HOUR + 600))).series
    assert found.gaps == [(BEGIN_AT + 600, BEGIN_AT + 2 * HOUR)]
    assert [at for at, *_ in found.points if BEGIN_AT + 600 <= at < BEGIN_AT + 2 * HOUR] == []


async def test_two_processes_on_one_machine_write_one_row_for_a_second(recorded: Recorded) -> None:
    first, second = recorded.history(), recorded.history()
    for history, value in ((first, 1.0), (second, 2.0)):
        history.add(moment(5), {CPU: value})
    await asyncio.gather(first.flush(), second.flush())
    assert len(await recorded.samples()) == 1


async def test_processes_of_several_machines_work_at_once(recorded: Recorded) -> None:
    machines = [recorded.history(host) for host in ("a", "b", "c")]

    async def work(history: History, value: float) -> None:
        for start in range(0, HOUR, 300):
            await write(history, start, start + 300, step=10, value=value)
            await history.roll_up(moment(start + 300))
            await history.purge(moment(start + 300))

    await asyncio.gather(*(work(history, number) for number, history in enumerate(machines)))
    (merged,) = (await machines[0].query(CPU.name, start=moment(0), end=moment(HOUR), step_seconds=3600)).series
    assert (merged.hosts, merged.points) == (["a", "b", "c"], [(BEGIN_AT, 1.0, 0.0, 2.0)])
    found = await machines[0].query(CPU.name, start=moment(0), end=moment(HOUR), host="c", step_seconds=60)
    assert {mean for _, mean, _, _ in found.series[0].points} == {2.0}


async def test_what_cannot_be_written_waits(tmp_path: Path) -> None:
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/later/ai_lab.sqlite")
    database = Database(url)
    history = Recorded(database).history()
    history.add(moment(0), {CPU: 1.0})
    with pytest.raises(DatabaseUnavailable):
        await history.flush()
    history.add(moment(5), {CPU: 2.0})
    await prepare_database(url)
    assert await history.flush() == 2
    assert list((await Recorded(database).samples()).values()) == [1.0, 2.0]
    await database.close()


async def test_what_a_cancelled_flush_was_writing_waits(recorded: Recorded) -> None:
    history = recorded.history()
    for second in range(0, 1000, 5):
        history.add(moment(second), {CPU: float(second)})
    task = asyncio.create_task(history.flush())
    while not await recorded.samples():  # noqa: ASYNC110 - until some batches are written, others are not
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await history.flush()
    assert sorted((await recorded.samples()).values()) == [float(second) for second in range(0, 1000, 5)]


async def test_no_more_waits_than_memory_is_meant_for(tmp_path: Path) -> None:
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/later/ai_lab.sqlite")
    database = Database(url)
    history = Recorded(database).history()
    for second in range(history_module.MOST_WAITING + 10):
        history.add(moment(second), {CPU: float(second)})
        if second % 100 == 0:
            with contextlib.suppress(DatabaseUnavailable):
                await history.flush()
    assert history.dropped_samples == 10
    await prepare_database(url)
    assert await history.flush() == history_module.MOST_WAITING
    assert min((await Recorded(database).samples()).values()) == 10.0  # the oldest went
    await database.close()


async def test_more_series_than_meant_and_false_numbers_are_left_out(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    history = recorded.history()
    many: dict[Series, float] = {series("disk", {"device": str(n)}): 1.0 for n in range(200)}
    for second in (0, 5):
        history.add(moment(second), {CPU: float("nan"), ROOT: float("inf")} | many)
    await history.flush()
    (known,) = await history.known()
    assert (known.metric, len(known.labels)) == ("disk", history_module.MOST_SERIES)
    assert (history.dropped_series, len(caplog.records)) == (80, 1)


async def test_killed_at_any_moment_it_loses_at_most_one_batch(recorded: Recorded, *, thorough: bool) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    url = recorded.database.url.render_as_string(hide_password=False)
    safe = BEGIN_AT
    for _ in range(20 if thorough else 3):
        command = [sys.executable, "-m", "tests.telemetry.history_writer", url, str(safe + BATCH * 5)]
        # Blocking is fine: nothing else runs in this loop.
        with subprocess.Popen(command, cwd=ROOT_FOLDER, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
            assert process.stdout
            safe = int(process.stdout.readline())
            time.sleep(chance.uniform(0, 0.3))  # noqa: ASYNC251 - nothing else runs here
            process.kill()
            safe = max([safe, *map(int, process.stdout.read().split())])
        written = await recorded.samples()
        newest = max(at for _, at in written)
        assert safe <= newest <= safe + BATCH * 5  # what was said to be safe is there, and at most the next batch
        assert {at for _, at in written if at > newest - BATCH * 5} == {newest - 5 * n for n in range(BATCH)}
        assert all(abs(value) == at for (_, at), value in written.items())
        until = moment(newest + HOUR)
        found = await recorded.rollups()
        expected = made_anew(written, int(until.timestamp()))
        assert all(found[key][0] <= expected[key][0] for key in found)
        await recorded.history().roll_up(until)
        assert_same(await recorded.rollups(), expected)
        safe = newest
    if recorded.database.is_sqlite:
        async with recorded.database.reading() as db:
            assert (await db.execute(text("PRAGMA integrity_check"))).scalar() == "ok"
