"""``kill -9`` at random moments: nothing that was acknowledged is lost, nothing stays half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_rounds import KillRounds


@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    tmp_path: Path, own_database_url: str | None, thorough: bool
) -> None:
    rounds = 40 if thorough else 4

    report = await KillRounds(tmp_path, own_database_url, seed=4711).run(rounds)

    assert not report.faults, "\n".join(report.faults[:20])
    assert report.rounds == rounds
    assert min(report.acknowledged[kind] for kind in ("messages", "states", "questions", "answers")) > 0
    assert report.partial_answers > 0, (
        "no kill met an answer in the making: the rounds have shown less than they should"
    )
