"""Frames of the live view for machines, sizes and states that this machine does not have."""

from datetime import timedelta

import pytest

from ai_lab.cli.address import Address, Trouble
from ai_lab.cli.counters import Counters
from ai_lab.cli.figures import ASCII, UNICODE
from ai_lab.cli.reading import Component, Health, Reading
from ai_lab.cli.top_screen import View, draw
from ai_lab.cli.trends import KEPT, Trends
from ai_lab.clock import now
from ai_lab.telemetry.schemas import GpuMetrics, SystemMetrics
from tests.cli.scripted_lab import metrics, performance

ADDRESS = Address("http://127.0.0.1:8001")


def reading(sample: SystemMetrics | None, counters: Counters | None = None, *components: Component) -> Reading:
    status = "degraded" if components else "healthy"
    health = Health(status=status, version="0.1.0", uptime_seconds=60, components=list(components))
    return Reading(health, sample, performance(), None, counters, {} if sample else {"metrics": "Switched off."})


def view(*readings: Reading) -> View:
    trends = Trends()
    for one in readings:
        trends.add(one)
    return View(ADDRESS, trends, readings[-1])


def lines_of(shown: View, width: int = 80, height: int | None = 24) -> list[str]:
    return draw(shown, width, height, UNICODE).plain.split("\n")


def line_of(lines: list[str], label: str) -> str:
    return next(line for line in lines if line.startswith(label))


def test_rates_come_from_two_looks() -> None:
    first, second = Counters(10.0, 100, 0, 500, 0, 0), Counters(15.0, 110, 5, 700, 3, 2)
    lines = lines_of(view(reading(metrics(), first), reading(metrics(), second)))
    assert line_of(lines, "Requests").split() == ["Requests", "2.0/s", "█", "3", "under", "way,", "1.0/s", "failing"]
    assert line_of(lines, "Tokens").split() == ["Tokens", "40.0/s", "█", "2", "answers", "under", "way"]


def test_the_same_sample_is_one_point_however_often_it_is_seen() -> None:
    sample = metrics()
    shown = view(*[reading(sample)] * 5)
    assert list(shown.trends.of("cpu")) == [37.4]


def test_what_cannot_be_measured_is_not_shown_as_nothing() -> None:
    sample = metrics(gpus=[GpuMetrics(index=0, memory_used_bytes=1024**3, memory_total_bytes=2 * 1024**3)])
    sample.cpu.usage_percent = None
    sample.cpu.per_core_percent = None
    lines = lines_of(view(reading(sample)))
    assert line_of(lines, "CPU").split()[1] == "-"
    assert line_of(lines, "GPU 0").split() == ["GPU", "0", "-", "1.0", "of", "2.0", "GiB"]


def test_a_lab_without_metrics_still_shows_its_traffic() -> None:
    lines = lines_of(view(reading(None, Counters(1.0)), reading(None, Counters(2.0, 5))))
    assert line_of(lines, "Machine").split() == ["Machine", "Switched", "off."]
    assert "5.0/s" in line_of(lines, "Requests")


@pytest.mark.parametrize(("cores", "rows"), [(1, 1), (2, 1), (4, 2), (12, 4), (13, 1), (256, 1)])
def test_cores_get_a_curve_each_or_a_block_each(cores: int, rows: int) -> None:
    lines = lines_of(view(reading(metrics(cores))), width=80, height=60)
    start = lines.index(line_of(lines, "  cores"))
    assert lines[start + rows].startswith("Memory")
    assert max(map(len, lines)) <= 80
    if rows == 1 and cores > 2:
        assert len(lines[start].split()[1]) == min(cores, 64)


def test_all_cores_are_in_the_blocks_also_where_there_are_more_than_columns() -> None:
    sample = metrics(256)
    assert sample.cpu.per_core_percent
    sample.cpu.per_core_percent = [100.0] + [0.0] * 255
    block_line = line_of(lines_of(view(reading(sample))), "  cores")
    assert "█" in block_line


@pytest.mark.parametrize("width", [1, 10, 30, 44, 63, 64, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 13, 24, 60])
def test_a_frame_is_as_large_as_the_screen(width: int, height: int) -> None:
    trouble = Trouble("No AI Lab server answers at http://127.0.0.1:8001.", "Start it with ./start.sh.")
    component = Component(component="disk", status="degraded", detail="full " * 30, remedy="Free some space.")
    good = view(reading(metrics(16, [GpuMetrics(index=0), GpuMetrics(index=1)]), Counters(1.0), component))
    lost = View(ADDRESS, good.trends, good.reading, trouble, now())
    for shown in (View(ADDRESS), good, lost, View(ADDRESS, Trends(), None, trouble, now())):
        lines = lines_of(shown, width, height)
        assert len(lines) == height
        assert max(map(len, lines)) <= width


def test_room_goes_to_the_slowest_operations() -> None:
    few, many = (lines_of(view(reading(metrics())), height=height) for height in (18, 40))
    assert any(line.startswith("POST /chat ") for line in many)
    assert any(line.startswith("embedded/tiny ") for line in many)
    assert not any(line.startswith("GET /metrics ") for line in many)
    order = [line.split("  ")[0] for line in many if line.startswith(("POST", "GET", "embedded"))]
    assert order == ["embedded/tiny", "POST /chat", "GET /v1/models"]
    assert any(line.startswith("embedded/tiny ") for line in few)


def test_a_lost_connection_is_dated_and_leaves_a_gap() -> None:
    good = view(reading(metrics()))
    good.trends.add_gap()
    trouble = Trouble("No AI Lab server answers at http://127.0.0.1:8001.", "Start it with ./start.sh.")
    lines = lines_of(View(ADDRESS, good.trends, good.reading, trouble, now() - timedelta(seconds=75)))
    assert lines[0].startswith("AI Lab  ✖ no connection  http://127.0.0.1:8001")
    assert "(1 min 15 s), trying again" in lines[1]
    assert "→ Start it with ./start.sh." in lines
    assert list(good.trends.of("cpu")) == [37.4, None]
    assert "37 %" in line_of(lines, "CPU")


def test_the_remedy_of_what_is_wrong_is_on_the_screen() -> None:
    component = Component(component="disk", status="degraded", detail="0.7 GiB free", remedy="Free some space.")
    lines = lines_of(view(reading(metrics(), None, component)))
    assert lines[1:3] == ["▲ disk: 0.7 GiB free", "  → Free some space."]


def test_series_do_not_grow_for_ever() -> None:
    trends = Trends()
    for _ in range(KEPT + 10):
        trends.add(reading(metrics()))
        trends.add_gap()
    assert len(trends.of("cpu")) == KEPT


def test_plain_signs_where_nothing_else_can_be_shown() -> None:
    shown = view(reading(metrics(4)), reading(metrics(4)))
    text = draw(shown, 200, 30, ASCII).plain
    assert text.isascii()
