"""Reports of runs that were cut short, and of records that make no sense."""

from __future__ import annotations

import random
from array import array
from typing import Any, get_args

import pytest

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.plan import Arm, GoodputSearch, Iterations, Load, OpenLoop, Plan, Slo
from ai_lab.benchmarks.records import Record, Status
from ai_lab.benchmarks.schemas import ReportBody
from tests.benchmarks.built_records import ORIGIN_NS, SECOND, built, built_run, failed

STAMPS = ["intended_ns", "dispatched_ns", "sent_ns", "end_ns", "first_token_ns", "first_answer_ns", "last_token_ns"]
SERVER_TIMES = ["load_ms", "prompt_ms", "decode_ms"]


@pytest.mark.parametrize(
    "data",
    [
        RunData(plan=Plan()),
        RunData(plan=Plan(), was_cancelled=True, expected_requests=10),
        RunData(plan=Plan(load=GoodputSearch(slo=Slo(ttft_ms=1)))),
        RunData(plan=Plan(load=GoodputSearch(slo=Slo(ttft_ms=1))), searched=[(0.5, 0)]),
        built_run([built(0)]),
        built_run([failed(index) for index in range(10)]),
        built_run([built(0, status="cancelled", tokens=0)], was_cancelled=True),
        built_run([built(index, tokens=0) for index in range(10)]),
        built_run([built(index) for index in range(3)], blocks=[], samples=[], instrument=None),
        built_run([Record(0, 0, 0, 0, "measured", "x") for _ in range(3)], blocks=[]),
        built_run([Record(0, 0, 0, 0, "measured", "x", status="error") for _ in range(3)], blocks=[]),
    ],
    ids=[
        *(
            "nothing",
            "cancelled at once",
            "search without steps",
            "search without records",
            "one request",
            "all failed",
        ),
        *("cancelled", "silent answers", "in mid-block", "no stamps", "no stamps and errors"),
    ],
)
def test_whatever_there_is_makes_a_report_of_strict_json(data: RunData) -> None:
    report = analyse(data)

    text = report.model_dump_json()
    assert ReportBody.model_validate_json(text) == report  # NaN and infinity would become null
    assert all(reason.text.endswith((".", "\u2026")) for reason in report.reasons)
    measured = [record for record in data.records if record.phase == "measured"]
    assert sum(cell.counts.all for cell in report.cells) == len(measured)


def odd_record(index: int, chance: random.Random) -> Record:
    """Return a record with stamps in no order and counts that contradict each other, half of them missing."""
    stamps = sorted(chance.randrange(SECOND) for _ in range(chance.randrange(6)))
    odd: dict[str, Any] = {name: chance.choice([None, ORIGIN_NS + chance.randrange(20 * SECOND)]) for name in STAMPS}
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        odd[name] = chance.choice([None, 0, 1, chance.randrange(30)])
    odd["server_ms"] = {name: chance.choice([0.0, 1e-9, 5.0, 1e6]) for name in chance.sample(SERVER_TIMES, 2)}
    odd["status"] = chance.choice([*get_args(Status), "ok", "ok"])
    return built(
        index,
        arm=chance.randrange(2),
        block=chance.randrange(6),
        chunk_ns=array("q", [ORIGIN_NS + stamp for stamp in stamps]),
        **odd,
    )


@pytest.mark.parametrize("seed", range(24))
def test_no_record_however_odd_makes_the_analysis_fail(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable
    records = [odd_record(index, chance) for index in range(chance.randrange(1, 25))]
    arms = [Arm(name="one"), Arm(name="two")]
    loads: list[Load] = [Iterations(), Iterations(concurrency=[4]), OpenLoop(rates=[2], requests=5)]

    report = analyse(
        built_run(records, plan=Plan(arms=arms, load=chance.choice(loads), slo=Slo(ttft_ms=100, tpot_ms=10)))
    )

    assert ReportBody.model_validate_json(report.model_dump_json()) == report  # NaN and infinity would become null
    assert sum(cell.counts.all for cell in report.cells) == len(records)
