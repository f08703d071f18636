"""``GET /performance/summary``: figures of exactly the window, against those of the plain list of what happened."""

import math
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.errors import InvalidRequest
from ai_lab.telemetry.operations.slot import Kind
from ai_lab.telemetry.operations.store import OperationStore
from ai_lab.telemetry.operations.summary import PerformanceSummary, check_hours, summarize, system_figures
from tests.telemetry.clocks import Clocks
from tests.telemetry.recorded import CPU, Recorded, moment

HOUR = 3600
NAMES: list[tuple[Kind, str]] = [
    ("http", "GET /conversations/{session_id}"),
    ("http", "POST /chat"),
    ("database", "select"),
    ("function", "train"),
    ("provider", "echo/echo"),
]


@dataclass(frozen=True)
class Happened:
    at: float
    kind: str
    name: str
    seconds: float
    failed: bool


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    yield database
    await database.close()


def exact(ranked: list[float], share: float) -> float:
    return ranked[max(1, math.ceil(share * len(ranked))) - 1]


async def summary_of(store: OperationStore, hours: float, now: float) -> PerformanceSummary:
    return summarize(await store.window(now - hours * HOUR, now), uptime_seconds=5)


async def test_every_window_has_the_figures_of_what_happened_in_it(database: Database) -> None:
    """Thirty hours, flushed, summed up and purged as a server does it, with a restart in between."""
    chance = random.Random(3)  # noqa: S311 - no secret
    clocks = Clocks()
    operations = clocks.operations(most_waiting=10_000)
    store = OperationStore(operations, database)
    happened: list[Happened] = []
    for round_number in range(600):
        for _ in range(chance.randrange(8)):
            kind, name = chance.choice(NAMES)
            one = Happened(clocks.wall, kind, name, chance.lognormvariate(-4, 1.5), chance.random() < 0.1)
            operations.record(kind, name, one.seconds, failed=one.failed)
            happened.append(one)
        clocks.pass_by(180)
        if round_number % 10 == 0:
            await store.flush()
            await store.roll_up(clocks.wall)
        if round_number == 300:
            await store.flush(everything=True)
            operations = clocks.operations(most_waiting=10_000)
            store = OperationStore(operations, database)
    await store.purge(clocks.wall)
    for hours in (0.001, 0.05, 1, 7.77, 24, 29.9, 720):
        found = await summary_of(store, hours, clocks.wall)
        window = found.window
        step = 10 if hours < 2 else 300 if hours < 48 else 24 * HOUR
        assert window.start.timestamp() <= clocks.wall - hours * HOUR < window.start.timestamp() + step
        assert window.end == datetime.fromtimestamp(clocks.wall, UTC)
        inside = defaultdict(list)
        for one in happened:
            if one.at >= window.start.timestamp():
                inside[one.kind, one.name].append(one)
        rows = [*found.http.by_route, *found.database, *found.functions]
        assert {(row.kind, row.name): row.count for row in rows} == {
            key: len(ones) for key, ones in inside.items() if key[0] != "provider"
        }
        for row in rows:
            ones = inside[row.kind, row.name]
            durations = sorted(one.seconds * 1000 for one in ones)
            assert row.errors == sum(one.failed for one in ones)
            assert row.error_rate == pytest.approx(row.errors / row.count, abs=1e-6)
            for share, figure in ((0.5, row.p50_ms), (0.9, row.p90_ms), (0.95, row.p95_ms), (0.99, row.p99_ms)):
                assert figure == pytest.approx(exact(durations, share), rel=0.01)
            assert row.min_ms == pytest.approx(durations[0], rel=1e-5)
            assert row.max_ms == pytest.approx(durations[-1], rel=1e-5)
            assert row.mean_ms == pytest.approx(sum(durations) / len(durations), rel=1e-5)
        slowest = sorted((one for ones in inside.values() for one in ones), key=lambda one: -one.seconds)[:10]
        assert [slow.name for slow in found.slowest] == [one.name for one in slowest]
        assert [slow.at.timestamp() for slow in found.slowest] == pytest.approx([one.at for one in slowest])


async def test_routes_carry_their_method(database: Database) -> None:
    clocks = Clocks()
    operations = clocks.operations()
    operations.record("http", "GET /conversations/{session_id}", 0.01)
    operations.record("http", "POST /chat", 0.02, failed=True)
    found = await summary_of(OperationStore(operations, database), 1, clocks.wall + 1)
    assert [(row.method, row.route) for row in found.http.by_route] == [
        ("POST", "/chat"),
        ("GET", "/conversations/{session_id}"),
    ]
    assert (found.http.requests, found.http.errors, found.http.error_rate) == (2, 1, 0.5)


async def test_models_have_their_first_token_their_rate_and_their_tokens(database: Database) -> None:
    clocks = Clocks()
    operations = clocks.operations()
    for number in range(1, 101):
        operations.record("provider", "echo/a model: 7b/q4", number / 10, failed=number > 90)
        operations.record("provider", "echo/a model: 7b/q4 first_token", number / 100)
        operations.record("provider", "echo/a model: 7b/q4 output_token", number / 1000)
        operations.count("tokens_input echo/a model: 7b/q4", 10)
        operations.count("tokens_output echo/a model: 7b/q4", 2)
    operations.record("provider", "ollama/other", 1.0)
    operations.count("tokens_input ollama/other", 7)
    summary = await summary_of(OperationStore(operations, database), 1, clocks.wall + 1)
    assert {slow.name for slow in summary.slowest} == {"echo/a model: 7b/q4"}
    found = summary.llm
    assert (found.requests, found.failures, found.tokens.input, found.tokens.output) == (101, 10, 1007, 200)
    first, other = found.by_model
    assert (first.provider, first.model, first.requests, first.failures) == ("echo", "a model: 7b/q4", 100, 10)
    assert first.failure_rate == 0.1
    assert first.first_token is not None
    assert first.first_token.p50_ms == pytest.approx(500, rel=0.01)
    assert first.decode_tokens_per_second is not None
    assert first.decode_tokens_per_second.p50 == pytest.approx(20, rel=0.011)
    assert first.decode_tokens_per_second.p05 == pytest.approx(1 / 0.095, rel=0.011)
    assert (first.tokens.input, first.tokens.output) == (1000, 200)
    assert (other.first_token, other.decode_tokens_per_second) == (None, None)


async def test_an_empty_window_has_no_invented_figures(database: Database) -> None:
    clocks = Clocks()
    found = await summary_of(OperationStore(clocks.operations(), database), 24, clocks.wall + 1)
    assert found.http.model_dump() == {"requests": 0, "errors": 0, "error_rate": None, "by_route": []}
    assert (found.database, found.functions, found.slowest, found.llm.by_model) == ([], [], [], [])
    assert found.system.cpu_usage_percent is None
    assert found.window.coverage_percent == 0


async def test_the_shape_keeps_the_names_of_earlier_clients(database: Database) -> None:
    clocks = Clocks()
    operations = clocks.operations()
    clocks.pass_by(36)
    found = await summary_of(OperationStore(operations, database), 0.01, clocks.wall)
    shown = found.model_dump(mode="json", by_alias=True)
    assert {"uptime_seconds", "current_metrics", "timestamp", "window", "percentile_method"} <= set(shown)
    assert set(shown["window"]) == {"from", "to", "seconds", "coverage_percent"}
    assert shown["window"]["coverage_percent"] == 100 * 36 / 36
    assert shown["percentile_method"] == "histogram"


async def test_the_machine_over_the_window_comes_from_its_own_history(database: Database) -> None:
    here, there = Recorded(database).history("here"), Recorded(database).history("there")
    for second, value in ((0, 1000.0), (10, 10.0), (15, 10.0), (25, 40.004)):
        here.add(moment(second), {CPU: value})
    there.add(moment(20), {CPU: 99.0})
    await here.flush()
    await there.flush()
    figures = await system_figures(here, moment(5), moment(60))
    assert figures.memory_usage_percent is None
    assert figures.cpu_usage_percent is not None
    assert figures.cpu_usage_percent.model_dump() == {"avg": 20.0, "min": 10.0, "max": 40.004}
    assert (await system_figures(here, moment(30), moment(60))).cpu_usage_percent is None


@pytest.mark.parametrize("hours", [0, -1, 17_521, math.nan, math.inf])
def test_windows_that_are_none_are_refused(hours: float) -> None:
    assert check_hours(17_520) == 17_520
    with pytest.raises(InvalidRequest, match="hours"):
        check_hours(hours)
