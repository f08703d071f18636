"""Figures as people read them."""

import pytest

from ai_lab.cli import figures
from ai_lab.cli.figures import ASCII, UNICODE, sparkline


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (150 * 1024, "150 KiB"),
        (1000 * 1024, "1.0 MiB"),
        (3.2 * 1024**3, "3.2 GiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_sizes(count: float | None, shown: str) -> None:
    assert figures.size(count) == shown


def test_a_part_repeats_the_unit_only_where_it_is_another() -> None:
    assert figures.part_of(3.2 * 1024**3, 7.8 * 1024**3) == "3.2 of 7.8 GiB"
    assert figures.part_of(100 * 1024**2, 2 * 1024**3) == "100 MiB of 2.0 GiB"
    assert figures.part_of(512, 8 * 1024) == "512 B of 8.0 KiB"
    assert figures.part_of(5, None) == "5 B of -"


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (None, "-"),
        (0.04, "0.0 ms"),
        (9.94, "9.9 ms"),
        (9.96, "10 ms"),
        (999, "999 ms"),
        (999.6, "1.0 s"),
        (90_000, "90.0 s"),
        (126_000, "2.1 min"),
    ],
)
def test_latencies(milliseconds: float | None, shown: str) -> None:
    assert figures.latency(milliseconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (11_550, "3 h 12 min"), (86_400 * 3 + 60, "3 d")],
)
def test_spans(seconds: float, shown: str) -> None:
    assert figures.span(seconds) == shown


def test_rates() -> None:
    assert [figures.per_second(value) for value in (None, 0, 4.24, 99.96, 12345)] == [
        "-",
        "0.0/s",
        "4.2/s",
        "100/s",
        "12,345/s",
    ]


def test_a_sparkline_shows_the_newest_values_at_the_right_and_gaps_as_gaps() -> None:
    blocks = UNICODE.blocks
    assert sparkline([0, 50, None, 100], 4, blocks, 100) == "▁▅ █"
    assert sparkline([100, 0], 4, blocks, 100) == "  █▁"
    assert sparkline([100, 1, 2, 4], 3, blocks) == "▃▅█"
    assert sparkline([0, 0], 2, blocks) == "▁▁"
    assert sparkline([250, -3], 2, blocks, 100) == "█▁"
    assert sparkline([], 3, blocks) == "   "
    assert sparkline([1], 0, blocks) == ""
    assert sparkline([0, 100], 2, ASCII.blocks, 100) == "_#"


def test_both_kinds_of_signs_have_a_sign_for_everything() -> None:
    assert len(ASCII.blocks) == len(UNICODE.blocks)
    for name in ("healthy", "degraded", "unhealthy", "remedy", "full", "free", "blocks"):
        assert getattr(ASCII, name).isascii()
    assert len({UNICODE.of(status) for status in ("healthy", "degraded", "unhealthy")}) == 3
    assert len({ASCII.of(status) for status in ("healthy", "degraded", "unhealthy")}) == 3


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    assert figures.plain("a\x1b[2Jb\nc\u202ed\x9b31m") == "a [2Jb c d 31m"
