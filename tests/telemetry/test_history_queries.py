import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.database.engine import WAIT_SECONDS
from ai_lab.database.setup import prepare_database
from ai_lab.errors import InvalidRequest, MetricNotFound
from ai_lab.telemetry.history.repository import IMPORTED, HistoryRepository
from ai_lab.telemetry.history.schemas import MetricHistory
from ai_lab.telemetry.history.series import series
from ai_lab.telemetry.history.service import History
from tests.telemetry.recorded import BEGIN_AT, CPU, HOME, ROOT, Recorded, moment

HOUR, DAY = 3600, 86400


@pytest.fixture
async def recorded(database_url: str) -> AsyncIterator[Recorded]:
    database = Database(make_url(database_url))
    yield Recorded(database)
    await database.close()


async def write(history: History, start: int, end: int, *, step: int = 5) -> None:
    """Write values that say their own second."""
    for number, second in enumerate(range(start, end, step)):
        history.add(moment(second), {CPU: float(second)})
        if number % 500 == 0:
            await history.flush()
    await history.flush()


async def test_the_newest_samples_are_in_every_answer(recorded: Recorded) -> None:
    """Hours that are rolled up, minutes of the hour that is not, samples of the minute that is not, and what waits."""
    history = recorded.history()
    await write(history, 0, 2 * HOUR + 90, step=10)
    await history.roll_up(moment(2 * HOUR + 90))
    history.add(moment(2 * HOUR + 95), {CPU: -1.0})
    async with asyncio.timeout(30):  # a slow disk may need longer than a question waits for it
        while await history.spread(CPU.name, start=moment(2 * HOUR + 95), end=moment(2 * HOUR + 96)) is None:
            pass
    for step in (5, 60, 3600):
        answer = await history.query(CPU.name, start=moment(0), end=moment(2 * HOUR + 120), step_seconds=step)
        points = answer.series[0].points
        assert answer.tier_seconds == step
        assert (points[0][0], points[-1][2]) == (BEGIN_AT, -1.0)
        # Every sample is in it once: seconds 0, 10 … and the last one.
        counts = {5: 1, 60: 6, 3600: 360}
        assert points[0][1] == sum(range(0, counts[step] * 10, 10)) / counts[step]
    hours = (await history.query(CPU.name, start=moment(0), end=moment(2 * HOUR + 120), step_seconds=3600)).series[0]
    last = [float(second) for second in range(2 * HOUR, 2 * HOUR + 90, 10)] + [-1.0]
    assert hours.points[-1] == (BEGIN_AT + 2 * HOUR, sum(last) / len(last), -1.0, 2 * HOUR + 80)


async def test_an_answer_without_any_rollup_is_the_same(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 2 * HOUR, step=10)

    async def ask() -> MetricHistory:
        return await history.query(CPU.name, start=moment(0), end=moment(2 * HOUR), step_seconds=60)

    before = await ask()
    await history.roll_up(moment(2 * HOUR))
    assert await ask() == before


async def test_what_lies_before_the_range_stays_out(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 120)
    await history.roll_up(moment(120))
    await write(history, 600, 900)  # not rolled up
    (found,) = (await history.query(CPU.name, start=moment(720), end=moment(840), step_seconds=60)).series
    assert [(at - BEGIN_AT, low, high) for at, _, low, high in found.points] == [(720, 720, 775), (780, 780, 835)]


@pytest.mark.parametrize(
    ("seconds", "tier", "step"),
    [
        (60, 5, 5),
        (HOUR, 5, 15),
        (99 * 60, 5, 20),
        (100 * 60, 60, 60),
        (DAY, 60, 300),
        (99 * HOUR, 60, 1200),
        (100 * HOUR, 3600, 3600),
        (30 * DAY, 3600, 10800),
    ],
)
async def test_the_coarsest_level_with_a_hundred_points_answers(
    recorded: Recorded, seconds: int, tier: int, step: int
) -> None:
    history = recorded.history()
    history.add(now(), {CPU: 1.0})
    await history.flush()
    answer = await history.query(CPU.name, start=now() - timedelta(seconds=seconds), end=now() + timedelta(seconds=1))
    assert (answer.tier_seconds, answer.step_seconds) == (tier, step)
    assert len(answer.series[0].points) == 1
    assert int(answer.from_.timestamp()) % step == 0


@pytest.mark.parametrize(
    ("asked", "given"), [(1, 5), (7, 10), (59, 60), (60, 60), (61, 120), (3599, 3600), (3600, 3600), (5000, 7200)]
)
async def test_a_given_step_is_rounded_up_to_what_the_level_has(recorded: Recorded, asked: int, given: int) -> None:
    history = recorded.history()
    await write(history, 0, 60)
    answer = await history.query(CPU.name, start=moment(0), end=moment(2 * HOUR), step_seconds=asked)
    assert answer.step_seconds == given


async def test_never_more_points_than_asked_for(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 4000)
    for most in (1, 2, 10, 77):
        answer = await history.query(CPU.name, start=moment(3), end=moment(3990), max_points=most)
        assert 1 <= len(answer.series[0].points) <= max(most, 2)


async def test_a_level_that_was_purged_gives_way_to_the_next(recorded: Recorded) -> None:
    history = recorded.history()
    old = -10 * DAY
    await write(history, old, old + HOUR, step=10)
    await write(history, 0, HOUR)
    await history.roll_up(moment(HOUR))
    await history.purge(now())
    ranges = {old: 60, 0: 5}
    for start, tier in ranges.items():
        answer = await history.query(CPU.name, start=moment(start), end=moment(start + HOUR))
        assert (answer.tier_seconds, answer.series[0].gaps) == (tier, [])
    await recorded.history().purge(moment(5 * DAY))  # minutes are kept for 14 days
    answer = await history.query(CPU.name, start=moment(old), end=moment(old + HOUR))
    assert answer.tier_seconds == 3600
    assert answer.series[0].points == [(BEGIN_AT + old, old + (HOUR - 10) / 2, old, old + HOUR - 10)]


async def test_gaps_of_more_than_three_intervals_are_named(recorded: Recorded) -> None:
    history = recorded.history()
    seconds = [*range(20, 100, 5), 108, 113, 133, *range(138, 200, 5)]
    for second in seconds:
        history.add(moment(second), {CPU: 1.0})
    await history.flush()
    answer = await history.query(CPU.name, start=moment(0), end=moment(300), step_seconds=60)
    (found,) = answer.series
    assert [(start - BEGIN_AT, end - BEGIN_AT) for start, end in found.gaps] == [(0, 20), (118, 133), (203, 300)]
    assert [at - BEGIN_AT for at, *_ in found.points] == [0, 60, 120, 180]


async def test_a_range_without_samples_is_one_gap(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 60)
    (found,) = (await history.query(CPU.name, start=moment(HOUR), end=moment(2 * HOUR))).series
    assert (found.points, found.gaps) == ([], [(BEGIN_AT + HOUR, BEGIN_AT + 2 * HOUR)])


async def test_what_is_to_come_is_no_gap(recorded: Recorded) -> None:
    history = recorded.history()
    history.add(now(), {CPU: 1.0})
    await history.flush()
    answer = await history.query(CPU.name, start=now() - timedelta(seconds=4), end=now() + timedelta(days=400))
    assert answer.series[0].gaps == []
    assert answer.to <= now() + timedelta(seconds=1)


async def test_gaps_of_several_machines_are_those_that_all_have(recorded: Recorded) -> None:
    here, there = recorded.history("here"), recorded.history("there")
    await write(here, 0, 300)
    await write(there, 200, 500)
    await write(here, 700, 900)
    await here.roll_up(moment(230))  # the rest is not rolled up yet
    for step in (5, 60):
        answer = await here.query(CPU.name, start=moment(0), end=moment(900), step_seconds=step)
        assert answer.series[0].gaps == [(BEGIN_AT + 500, BEGIN_AT + 700)]


async def test_a_row_of_one_machine_spans_what_another_one_has_not(recorded: Recorded) -> None:
    """One machine's hour is rolled up; of the other one only some minutes of it are there yet."""
    here, there = recorded.history("here"), recorded.history("there")
    await write(here, 0, 2 * HOUR)
    await here.roll_up(moment(2 * HOUR))
    await write(there, 0, 600)
    answer = await here.query(CPU.name, start=moment(0), end=moment(2 * HOUR), step_seconds=3600)
    assert answer.series[0].gaps == []


async def test_series_are_told_apart_by_their_labels(recorded: Recorded) -> None:
    history = recorded.history()
    history.add(moment(0), {ROOT: 1.0, HOME: 2.0})
    await history.flush()
    both = await history.query(ROOT.name, start=moment(0), end=moment(60))
    assert [(each.labels["mountpoint"], each.points[0][1]) for each in both.series] == [("/", 1.0), ("/home", 2.0)]
    one = await history.query(ROOT.name, start=moment(0), end=moment(60), labels={"mountpoint": "/home"})
    assert [each.labels for each in one.series] == [{"mountpoint": "/home"}]
    (known,) = await history.known()
    assert (known.metric, known.unit, known.hosts) == (ROOT.name, "bytes", ["here"])
    assert sorted(each["mountpoint"] for each in known.labels) == ["/", "/home"]


async def test_an_answer_speaks_json(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 10)
    answer = await history.query(CPU.name, start=moment(0), end=moment(60), step_seconds=5)
    found = answer.model_dump(mode="json", by_alias=True)
    assert (found["metric"], found["unit"], found["step_seconds"]) == ("cpu_usage_percent", "percent", 5)
    assert datetime.fromisoformat(found["from"]) == moment(0)
    assert found["series"][0]["points"] == [[BEGIN_AT, 0.0, 0.0, 0.0], [BEGIN_AT + 5, 5.0, 5.0, 5.0]]


@pytest.mark.parametrize(
    ("start", "end", "step", "says"),
    [
        (0, 0, None, "empty"),
        (10, 0, None, "empty"),
        (10 * DAY, 11 * DAY, None, "future"),
        (0, 2 * HOUR, 0, "at least one second"),
        (-30 * DAY, 0, 60, r"43200 points .* smallest step possible for it is 540 s"),
        (-30 * DAY, 0, 1, r"518400 points .* smallest step possible for it is 520 s"),
    ],
)
async def test_ranges_that_cannot_be_answered_say_what_can(
    recorded: Recorded, start: int, end: int, step: int | None, says: str
) -> None:
    history = recorded.history()
    history.add(moment(0), {CPU: 1.0})
    await history.flush()
    with pytest.raises(InvalidRequest, match=says):
        await history.query(CPU.name, start=moment(start), end=moment(end), step_seconds=step)


async def test_the_ends_of_the_calendar_are_ranges_too(recorded: Recorded) -> None:
    history = recorded.history()
    history.add(moment(0), {CPU: 1.0})
    await history.flush()
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    answer = await history.query(CPU.name, start=first, end=last)
    assert len(answer.series[0].points) == 1


async def test_an_unknown_metric_gets_near_names(recorded: Recorded) -> None:
    history = recorded.history()
    history.add(moment(0), {CPU: 1.0, ROOT: 1.0})
    await history.flush()
    start, end = moment(0), moment(60)
    with pytest.raises(MetricNotFound, match="Did you mean cpu_usage_percent") as raised:
        await history.query("cpu_usage", start=start, end=end)
    assert raised.value.near_matches == ["cpu_usage_percent"]
    with pytest.raises(MetricNotFound, match="not measured on 'moon', but on here"):
        await history.query(CPU.name, start=start, end=end, host="moon")
    with pytest.raises(MetricNotFound, match=r'It has \{"mountpoint":"/"\}'):
        await history.query(ROOT.name, start=start, end=end, labels={"mountpoint": "/var"})


async def test_the_answer_of_a_month_reads_some_thousand_rows_at_most(recorded: Recorded) -> None:
    """Every level is found by its key: whatever else is stored, a question reads its own rows alone."""
    history = recorded.history()
    await write(history, 0, 60)
    async with recorded.database.transaction() as db:
        repository = HistoryRepository(db)
        number = (await repository.series_ids("here", [CPU]))[CPU]
        names = ("tier", "series_id", "start", "count", "sum", "min", "max")
        hours = range(BEGIN_AT - 31 * DAY, BEGIN_AT, HOUR)
        await repository.add_rollups(
            [dict(zip(names, (HOUR, number, start, 720, 720.0, 1.0, 1.0), strict=True)) for start in hours]
        )
    answer = await history.query(CPU.name, start=moment(-30 * DAY), end=moment(0))
    assert (answer.tier_seconds, answer.series[0].gaps) == (3600, [])
    assert len(answer.series[0].points) in {240, 241}


async def test_without_a_start_it_is_an_hour(recorded: Recorded) -> None:
    history = recorded.history()
    await write(history, 0, 2 * HOUR, step=60)
    answer = await history.query(CPU.name, start=None, end=moment(2 * HOUR), step_seconds=60)
    assert (answer.from_, answer.to) == (moment(HOUR), moment(2 * HOUR))
    with pytest.raises(InvalidRequest, match="empty"):  # an hour before it there was no calendar
        await history.query(CPU.name, start=None, end=datetime(1, 1, 1, 0, 30, tzinfo=UTC))


async def test_an_unknown_metric_is_told_before_an_empty_range(recorded: Recorded) -> None:
    with pytest.raises(MetricNotFound):
        await recorded.history().query("no_such_metric", start=moment(0), end=moment(0))


async def test_many_series_share_the_points_of_an_answer(recorded: Recorded) -> None:
    history = recorded.history()
    mounts = [series("filesystem_free_bytes", {"mountpoint": f"/{number}"}) for number in range(100)]
    history.add(moment(0), dict.fromkeys(mounts, 1.0))
    await history.flush()
    start, end = moment(0), moment(HOUR)
    chosen = await history.query(ROOT.name, start=start, end=end, max_points=5000)
    assert (len(chosen.series), chosen.step_seconds) == (100, 20)  # 200 points for each of them: 20,000 in all
    with pytest.raises(InvalidRequest, match=r"720 points of this range, and 200 .* step possible for it is 20 s"):
        await history.query(ROOT.name, start=start, end=end, step_seconds=5)
    fine = await history.query(ROOT.name, start=start, end=end, step_seconds=5, labels={"mountpoint": "/7"})
    assert fine.step_seconds == 5


@pytest.mark.parametrize("seconds", [(10, 50), (7, 200), (65, 2 * HOUR + 77), (HOUR + 7, 6 * HOUR + 33)])
@pytest.mark.parametrize("is_rolled_up", [False, True])
async def test_a_spread_is_that_of_exactly_the_samples_of_the_range(
    recorded: Recorded, seconds: tuple[int, int], *, is_rolled_up: bool
) -> None:
    history, (start, end) = recorded.history(), seconds
    for other in ("there", f"{IMPORTED}1"):
        await write(recorded.history(other), 0, 7 * HOUR, step=600)
    await write(history, 0, 5 * HOUR, step=10)
    if is_rolled_up:
        await history.roll_up(moment(4 * HOUR + 90))
    expected = [float(second) for second in range(0, 5 * HOUR, 10) if start <= second < end]
    found = await history.spread(CPU.name, start=moment(start), end=moment(end))
    assert found is not None
    assert found.mean == pytest.approx(sum(expected) / len(expected))
    assert (found.min, found.max) == (expected[0], expected[-1])


async def test_a_spread_of_days_is_made_of_hours_and_of_what_is_kept_at_its_ends(recorded: Recorded) -> None:
    history = recorded.history()
    start, end = -6 * DAY + 1234, -1234
    await write(history, -7 * DAY, 0, step=100)
    await history.roll_up(moment(0))
    values = [float(second) for second in range(-7 * DAY, 0, 100) if start <= second < end]
    found = await history.spread(CPU.name, start=moment(start), end=moment(end))
    assert found == pytest.approx((sum(values) / len(values), values[0], values[-1]))
    await history.purge(moment(0))  # samples are kept for a day
    found = await history.spread(CPU.name, start=moment(start), end=moment(end))
    assert found is not None
    assert start <= found.min < start + 160
    assert found.max == values[-1]
    assert found.mean == pytest.approx(sum(values) / len(values), abs=60)


async def test_a_spread_of_nothing_is_none(recorded: Recorded) -> None:
    history = recorded.history()
    assert await history.spread(CPU.name, start=moment(0), end=moment(60)) is None
    await write(history, 0, 60)
    assert await history.spread(CPU.name, start=moment(60), end=moment(60)) is None
    assert await history.spread(CPU.name, start=moment(60), end=moment(9 * DAY)) is None


async def test_reading_does_not_wait_for_another_writer(tmp_path: Path) -> None:
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/ai_lab.sqlite")
    await prepare_database(url)
    database, other = Database(url), Database(url)
    history = Recorded(database).history()
    await write(history, 0, 60)
    async with other.transaction() as db:
        await db.execute(text("DELETE FROM metric_rollups"))
        history.add(moment(60), {CPU: 60.0})
        async with asyncio.timeout(WAIT_SECONDS / 2):  # a writer would wait for the whole of it
            before = await history.query(CPU.name, start=moment(0), end=moment(120), step_seconds=5)
    assert len(before.series[0].points) == 12
    await history.flush()  # nothing of it was lost
    after = await history.query(CPU.name, start=moment(0), end=moment(120), step_seconds=5)
    assert len(after.series[0].points) == 13
    await database.close()
    await other.close()
