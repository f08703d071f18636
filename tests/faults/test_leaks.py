"""Clients that leave in the middle of an answer leave nothing behind but what was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cut_streams import cut_streams


@pytest.mark.timeout(600)
async def test_cut_answers_leave_nothing_behind(tmp_path: Path, *, thorough: bool) -> None:
    count = 500 if thorough else 64

    # A busy machine may need longer than the five seconds that scripts/measure_leaks.py allows.
    report = await cut_streams(tmp_path / "data", count, seed=4711, calm_within_seconds=60)

    assert not report.faults, "\n".join(report.faults[:10])
    assert report.cut.total() + report.whole == count
    assert report.cut.total() > count / 2
    assert len(report.cut) == 8, "every way of asking has been cut"
    assert report.upstream_seconds
    assert set(report.stored) <= {"incomplete", "complete", "not begun"}
