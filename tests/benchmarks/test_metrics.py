"""The metrics of one request: exact figures of records built by hand."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest

from ai_lab.benchmarks.analysis.metrics import (
    METRICS,
    adjusted_values,
    definitions,
    gaps_of,
    prefill_values,
    values_of,
)
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import DEFINITION_VERSION
from tests.benchmarks.built_records import MS, built, failed


def value(name: str, record: Record) -> float:
    return float(values_of(METRICS[name], [record])[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ttft", 100.0),
        ("ttft_sched", 130.0),
        ("e2e", 200.0),
        ("e2e_sched", 230.0),
        ("tpot", 10.0),
        ("decode_tps", 100.0),
        ("server_decode_tps", 100.0),
        ("prefill_tps_server", 100 / 0.09),
        ("prompt_tps_until_first_token", 1000.0),
        ("load", 2.0),
        ("overhead", 100.0 - 2.0 - 90.0),
    ],
)
def test_exact_figures_of_a_request(name: str, expected: float) -> None:
    assert value(name, built(wait_ms=30)) == pytest.approx(expected, rel=1e-12)


def test_the_servers_decode_rate_counts_the_steps_between_tokens_and_not_the_tokens() -> None:
    record = built(tokens=4, server_ms={"decode_ms": 30.0})

    assert value("server_decode_tps", record) == pytest.approx(100.0)  # 4 / 30 ms would be 133


def test_tokens_that_came_with_the_first_took_no_time_of_their_own() -> None:
    first_read_of_four = built(tokens=3, gap_ms=80, completion_tokens=20, chunk_tokens=array("i", [4, 8, 8]))

    assert first_read_of_four.later_tokens() == 16
    assert value("tpot", first_read_of_four) == pytest.approx(10.0)


def test_chunks_that_share_the_first_read_are_of_the_first_moment() -> None:
    record = built(tokens=11)
    record.chunk_ns[1] = record.chunk_ns[0]
    first = record.chunk_ns[0]
    last = first + 9 * 10 * MS

    record.last_token_ns = last

    assert record.later_tokens() == 9
    assert value("tpot", record) == pytest.approx(10.0)


def test_a_token_that_ends_the_answer_without_text_is_no_step() -> None:
    assert built(tokens=11, completion_tokens=12, finish_reason="stop").later_tokens() == 10
    assert built(tokens=11, completion_tokens=12, finish_reason="length").later_tokens() == 11


@pytest.mark.parametrize(
    "record",
    [
        built(tokens=1),
        built(tokens=5, gap_ms=0),  # all in one read: no speed can be told
        built(completion_tokens=None, token_source=None),
    ],
)
def test_no_time_per_token_without_two_moments_and_a_count(record: Record) -> None:
    assert math.isnan(value("tpot", record))
    assert math.isnan(value("decode_tps", record))


def test_time_to_the_answer_itself_is_apart_from_reasoning() -> None:
    record = built(tokens=11)
    record.first_answer_ns = record.chunk_ns[5]

    assert value("ttft", record) == 100.0
    assert value("ttfat", record) == 150.0


def test_failed_requests_have_no_latency_and_short_ones_only_where_length_does_not_matter() -> None:
    short, aborted = built(status="short", tokens=5), built(status="aborted")

    assert value("ttft", short) == 100.0
    assert value("tpot", short) == 10.0
    assert math.isnan(value("e2e", short))
    assert math.isnan(value("ttft", aborted))
    assert gaps_of(aborted).size == 0


def test_failures_are_infinite_in_adjusted_values_and_cancelled_ones_are_not() -> None:
    records = [built(0), built(1, status="short"), failed(2), built(3, status="cancelled")]
    ttft, e2e = METRICS["ttft"], METRICS["e2e"]

    assert adjusted_values(ttft, records, values_of(ttft, records)).tolist() == [100.0, 100.0, math.inf]
    assert adjusted_values(e2e, records, values_of(e2e, records)).tolist() == [200.0, math.inf, math.inf]


def test_gaps_are_raw_zeros_of_shared_reads_included() -> None:
    record = built(tokens=4)
    record.chunk_ns[2] = record.chunk_ns[1]

    assert gaps_of(record).tolist() == [10.0, 0.0, 20.0]


def test_cached_tokens_are_no_work_of_prefill() -> None:
    record = built(prompt_tokens=128, cached_tokens=123, server_ms={"prompt_ms": 50.0})

    assert value("prefill_tps_server", record) == pytest.approx(100.0)  # 5 tokens, not 128
    assert math.isnan(value("prefill_tps_server", built(prompt_tokens=128, cached_tokens=128)))


def test_a_rate_lifted_by_a_cache_that_the_server_hides_is_left_out() -> None:
    records = [built(index, cached_tokens=None, server_ms={"prompt_ms": 500.0}) for index in range(9)]
    records.append(built(9, cached_tokens=None, server_ms={"prompt_ms": 50.0}))  # ten times as fast: a cache

    rates, left_out = prefill_values(records, {record.prompt_sha256 for record in records})

    assert left_out == 1
    assert np.nanmax(rates) == pytest.approx(200.0)


def test_repeated_prompts_have_no_prefill_rate_where_the_server_hides_its_cache() -> None:
    records = [built(index, cached_tokens=None, prompt_sha256="same") for index in range(5)]

    rates, left_out = prefill_values(records, set())

    assert left_out == 5
    assert np.isnan(rates).all()


def test_known_cached_counts_are_believed_for_repeated_prompts() -> None:
    records = [built(index, cached_tokens=95, prompt_sha256="same", server_ms={"prompt_ms": 50}) for index in range(5)]

    rates, left_out = prefill_values(records, set())

    assert left_out == 0
    assert rates.tolist() == pytest.approx([100.0] * 5)


def test_every_metric_says_unit_formula_direction_and_version() -> None:
    for name, definition in definitions().items():
        assert definition["formula"], name
        assert definition["unit"], name
        assert definition["better"] in {"less", "more"}, name
        assert definition["definition_version"] == str(DEFINITION_VERSION)
