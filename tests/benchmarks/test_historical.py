"""Stored runs against each other: judged by the noise between equal runs, and never without what else differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ai_lab.benchmarks.analysis.historical import compare_stored
from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.schemas import Comparison, ReportBody
from ai_lab.errors import InvalidRequest
from tests.benchmarks.built_records import built, built_run


def stored(run_id: str, gap_ms: float, report: dict[str, Any] | None = None, **plan: Any) -> StoredRun:
    """Return a run of 20 answers whose tokens come every ``gap_ms``."""
    data = built_run([built(index, gap_ms=gap_ms) for index in range(20)])
    data.provenance = {"host": {"cpu": "one"}}
    body = analyse(data).model_copy(update=report or {})
    return StoredRun(run_id, data.plan.model_copy(update=plan), report=body)


def tpot(one: StoredRun, other: StoredRun, siblings: Sequence[ReportBody] = ()) -> Comparison:
    found = compare_stored(Job("compare", one, others=[other], siblings=[list(siblings)]))
    return next(comparison for comparison in found if comparison.metric == "tpot")


def noise(*gaps_ms: float, **report: Any) -> list[ReportBody]:
    return [body for gap_ms in gaps_ms if (body := stored("", gap_ms, report).report)]


def test_a_change_is_judged_by_what_equal_runs_differ_in() -> None:
    before, after = stored("a", 10), stored("b", 11)
    quiet = noise(10, 10.05, 9.95, 10, 10.05, 10)
    assert (tpot(before, after, quiet).verdict, tpot(after, before, quiet).verdict) == ("slower", "faster")
    assert tpot(before, after, noise(10, 11, 10, 9, 10, 11)).verdict == "inconclusive"
    assert "0 of the 5 changes" in tpot(before, after).sentence
    assert tpot(before, after, quiet).sentence.endswith("(tpot).")


def test_figures_of_another_definition_are_no_noise() -> None:
    older = noise(20, 30, 20, definition_version=0)
    assert tpot(stored("a", 10), stored("b", 11), [*older, *noise(10, 10.05, 9.95, 10, 10.05, 10)]).verdict == "slower"
    with pytest.raises(InvalidRequest, match="not the same figures"):
        tpot(stored("a", 10), stored("b", 11, {"definition_version": 0}))


def test_a_comparison_says_what_else_differs() -> None:
    plain = stored("a", 10)
    assert tpot(plain, stored("b", 11, output_tokens=99)).sentence.endswith(
        " They did not ask the same (output_tokens differ)."
    )
    moved = stored("b", 11, {"provenance": {"host": {"cpu": "two"}}, "grade": "SUSPECT"})
    assert tpot(plain, moved).sentence.endswith(" They were measured on different machines. Run b is SUSPECT.")
    assert tpot(moved, plain).sentence.endswith(" They were measured on different machines. Run b is SUSPECT.")
