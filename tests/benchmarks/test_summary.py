"""Reports made of records: exact figures of whole cells, and reports of runs that were cut short."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.plan import Arm, GoodputSearch, Iterations, OpenLoop, Plan, Prompts, Slo
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Cell
from tests.benchmarks.built_records import MS, blocks_of, built, built_run, failed, quiet_samples


def only_cell(data: RunData) -> Cell:
    (cell,) = analyse(data).cells
    return cell


def total(cell: Cell, name: str) -> float | None:
    return cell.totals[name].value


def test_a_sound_run_is_valid_with_exact_figures() -> None:
    report = analyse(built_run())

    (cell,) = report.cells
    assert (report.grade, report.reasons) == ("VALID", [])
    assert cell.counts.ok == cell.counts.all == 20
    assert cell.metrics["ttft"].median.value == 100.0
    assert cell.metrics["tpot"].mean.value == pytest.approx(10.0)
    assert cell.metrics["e2e"].percentiles["p95"].value == 200.0
    assert cell.metrics["gap"].n == 200
    assert cell.metrics["gap"].n_clusters == 20
    assert total(cell, "server_client_decode_ratio") == pytest.approx(1.0)
    # Two blocks of ten requests, a second from one to the next, the last 200 ms long.
    assert total(cell, "request_rps") == pytest.approx(20 / 18.4)
    assert total(cell, "output_tps") == pytest.approx(220 / 18.4)
    assert total(cell, "input_tps") == pytest.approx(2000 / 18.4)
    assert report.duration_seconds == pytest.approx(18.4)
    assert total(cell, "error_share") == 0.0
    assert total(cell, "cached_share") == 0.0
    assert total(cell, "client_cpu_us_per_chunk") == pytest.approx(2000 / 220)
    assert cell.prompt_tokens_median == 100
    assert cell.completion_tokens_median == 11
    assert cell.token_source == "server"
    assert set(cell.metrics) | set(cell.totals) <= set(report.definitions)


def test_scheduled_latencies_are_of_open_loops_and_the_answer_of_reasoning_models() -> None:
    closed = only_cell(built_run())
    assert "ttft_sched" not in closed.metrics
    assert "ttfat" not in closed.metrics

    reasoning = [built(index) for index in range(20)]
    for record in reasoning:
        record.first_answer_ns = record.chunk_ns[5]
    assert only_cell(built_run(reasoning)).metrics["ttfat"].median.value == 150.0


def test_failures_are_counted_named_and_infinite_in_adjusted_percentiles() -> None:
    records = [built(index) for index in range(8)] + [failed(8), failed(9, status="timeout", error=None)]

    cell = only_cell(built_run(records))

    assert (cell.counts.ok, cell.counts.error, cell.counts.timeout) == (8, 1, 1)
    assert cell.errors == {"The server answered with status 500.": 1, "timeout without a reason": 1}
    assert total(cell, "error_share") == pytest.approx(0.2)
    ttft = cell.metrics["ttft"]
    assert ttft.n == 8
    assert ttft.percentiles["p99"].value == 100.0
    assert ttft.adjusted_percentiles == {"p50": 100.0, "p90": None, "p95": None, "p99": None}


def test_cancelled_requests_are_no_failures() -> None:
    records = [built(index) for index in range(9)] + [built(9, status="cancelled", tokens=3)]

    cell = only_cell(built_run(records, was_cancelled=True))

    assert cell.counts.cancelled == 1
    assert total(cell, "error_share") == 0.0
    assert cell.metrics["ttft"].adjusted_percentiles["p99"] == 100.0
    assert cell.errors == {}


def test_errors_that_differ_in_every_request_stay_readable() -> None:
    records = [failed(index, error=f"request {index} failed") for index in range(50)]

    errors = only_cell(built_run(records)).errors

    assert len(errors) == 21
    assert errors["other errors"] == 30


def test_stalls_are_gaps_above_ten_medians() -> None:
    records = [built(index) for index in range(20)]
    stalled = records[3]
    for number in range(5, 11):
        stalled.chunk_ns[number] += 95 * MS  # one gap of 105 ms among those of 10 ms
    stalled.last_token_ns = stalled.chunk_ns[-1]

    gap = only_cell(built_run(records)).metrics["gap"]

    assert gap.extra["stalls"] == 1
    assert gap.extra["stall_share"] == pytest.approx(1 / 200)
    assert gap.max == pytest.approx(105.0)
    assert gap.extra["shared_read_share"] == 0.0


def test_warmup_and_discarded_records_are_no_part_of_figures() -> None:
    records = [built(index) for index in range(20)]
    records += [built(90, phase="warmup", ttft_ms=9000, block=-1), built(91, phase="discarded", ttft_ms=9000)]

    cell = only_cell(built_run(records))

    assert cell.counts.all == 20
    assert cell.metrics["ttft"].max == 100.0


def test_requests_that_still_warm_up_are_left_out_of_latencies_but_counted() -> None:
    slow = [1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2]
    records = [built(k, gap_ms=10 * (slow[k] if k < len(slow) else 1 + 0.001 * (k * 7 % 5))) for k in range(60)]

    cell = only_cell(built_run(records))

    assert cell.stability is not None
    assert cell.stability.dropped_as_warmup == 10
    assert cell.stability.is_stable
    assert cell.metrics["tpot"].n == cell.metrics["ttft"].n == 50
    assert cell.metrics["tpot"].max == pytest.approx(10.04)
    assert cell.counts.ok == 60
    assert [note for note in cell.notes if note.startswith("the first 10 requests were still warming up")]


def open_run(records: list[Record], **changes: Any) -> RunData:
    plan = Plan(load=OpenLoop(requests=len(records), rates=[10], arrivals="constant"), output_tokens=11, **changes)
    return built_run(records, plan=plan)


def test_one_slot_asked_twice_as_fast_as_it_serves_makes_waits_grow_by_the_difference() -> None:
    service_ms, step_ms = 200, 100  # D/D/1: request k waits k * (200 - 100) ms
    records = [built(k, block=0, start_ms=k * step_ms, ttft_ms=100 + k * (service_ms - step_ms)) for k in range(40)]

    cell = only_cell(open_run(records))

    ttft = cell.metrics["ttft_sched"]
    assert (ttft.min, ttft.max) == (100.0, 100.0 + 39 * 100)
    assert total(cell, "offered_rps") == pytest.approx(10.0)
    assert total(cell, "achieved_rps") == pytest.approx(10.0)
    span = 3.9 + 4.1  # the last one is due after 3.9 s and has its last token 4.1 s later
    assert total(cell, "request_rps") == pytest.approx(40 / span)
    assert cell.level_kind == "rate"


def test_dispatch_delay_and_achieved_rate_are_the_clients_own() -> None:
    records = [built(k, block=0, start_ms=k * 100) for k in range(40)]
    for k, record in enumerate(records):
        record.dispatched_ns = (record.intended_ns or 0) + k * MS  # later and later

    cell = only_cell(open_run(records))

    assert total(cell, "dispatch_delay_p99_ms") == pytest.approx(38.61)
    assert total(cell, "achieved_rps") == pytest.approx(39 / 3.939)


def test_goodput_counts_short_and_failed_requests_as_bad() -> None:
    good = [built(index) for index in range(6)]
    bad = [built(6, ttft_ms=500), built(7, gap_ms=50), built(8, status="short"), failed(9)]
    plan = Plan(load=Iterations(requests=10), output_tokens=11, slo=Slo(ttft_ms=150, tpot_ms=20))

    cell = only_cell(built_run([*good, *bad], plan=plan))

    assert total(cell, "goodput_share") == pytest.approx(0.6)
    assert cell.totals["goodput_share"].method == "wilson"
    rps, goodput = total(cell, "request_rps"), total(cell, "goodput_rps")
    assert rps is not None
    assert goodput == pytest.approx(rps * 6 / 9)


def test_an_answer_of_one_token_keeps_every_limit_between_tokens() -> None:
    plan = Plan(output_tokens=1, slo=Slo(tpot_ms=20))
    records = [built(index, tokens=1) for index in range(10)]

    assert total(only_cell(built_run(records, plan=plan)), "goodput_share") == 1.0


def test_goodput_of_open_loops_counts_from_the_intended_time() -> None:
    records = [built(k, start_ms=k * 100, wait_ms=100) for k in range(20)]

    assert total(only_cell(open_run(records, slo=Slo(ttft_ms=150))), "goodput_share") == 0.0


def test_equal_answers_to_equal_prompts_are_counted_in_pairs() -> None:
    records = [built(k, prompt_sha256="same", output_sha256=text) for k, text in enumerate("aaab")]
    plan = Plan(load=Iterations(requests=4), prompts=Prompts(mode="repeat"), output_tokens=11)

    cell = only_cell(built_run(records, plan=plan))

    assert total(cell, "determinism_share") == pytest.approx(3 / 6)
    assert "determinism_share" not in only_cell(built_run()).totals


def test_repeated_prompts_report_the_cached_share() -> None:
    records = [built(k, prompt_sha256="same", cached_tokens=90 if k else 0) for k in range(10)]
    plan = Plan(load=Iterations(requests=10), prompts=Prompts(mode="repeat"), output_tokens=11)

    assert total(only_cell(built_run(records, plan=plan)), "cached_share") == pytest.approx(0.81)


def test_token_totals_are_missing_rather_than_partial() -> None:
    records = [built(index) for index in range(9)] + [built(9, completion_tokens=None, token_source=None)]

    assert "output_tps" not in only_cell(built_run(records)).totals


def two_arms(ratio: float, blocks: int = 20) -> RunData:
    """Return interleaved blocks of one request, the second arm ``ratio`` times as long per token."""
    plan = Plan(
        arms=[Arm(model="a", name="one"), Arm(model="b", name="two")],
        load=Iterations(requests=blocks),
        output_tokens=11,
    )
    records = []
    for number in range(2 * blocks):
        arm = (number + number // 2) % 2  # ABBA
        jitter = 1 + 0.004 * ((number * 7) % 5 - 2)
        slow = ratio if arm else 1.0
        records.append(built(number, arm=arm, block=number, gap_ms=10 * slow * jitter, ttft_ms=100 * slow * jitter))
    return built_run(records, plan=plan, expected_requests=2 * blocks)


def test_arms_are_compared_with_the_first_on_what_matters() -> None:
    report = analyse(two_arms(1.2))

    found = {one.metric: one for one in report.comparisons}
    assert set(found) == {"tpot", "ttft", "e2e", "output_tps"}
    assert {one.verdict for one in report.comparisons} == {"slower"}
    assert {(one.baseline, one.arm, one.n_blocks) for one in report.comparisons} == {("one", "two", 20)}
    assert found["tpot"].ratio == pytest.approx(1.2, rel=0.01)
    assert found["output_tps"].ratio == pytest.approx(1 / 1.2, rel=0.01)


def test_equal_arms_are_equivalent() -> None:
    assert {one.verdict for one in analyse(two_arms(1.0)).comparisons} == {"equivalent"}


def test_an_arm_that_never_answered_is_compared_with_nobody() -> None:
    data = two_arms(1.0)
    data.records = [failed(one.index, arm=1, block=one.block) if one.arm else one for one in data.records]

    report = analyse(data)

    assert report.comparisons == []
    assert report.grade == "INVALID"
    assert len(report.cells) == 2


def test_a_search_reports_its_steps_and_the_highest_rate() -> None:
    slo = Slo(ttft_ms=150, share=0.9)
    plan = Plan(load=GoodputSearch(slo=slo, start_rate=1, requests=10, precision=0.5), output_tokens=11)
    records: list[Record] = []
    searched = []
    for step, rate in enumerate((1.0, 2.0, 4.0)):
        searched.append((rate, step))
        waits = 0 if rate < 4 else 400
        start = step * 60_000
        records += [
            built(step * 10 + k, level=step, block=step, start_ms=start + k * 1000 / rate, ttft_ms=100 + waits)
            for k in range(10)
        ]

    report = analyse(built_run(records, plan=plan, searched=searched))

    assert [(step.rate, step.holds) for step in report.search] == [(1.0, True), (2.0, True), (4.0, False)]
    assert report.highest_rate is not None
    assert (report.highest_rate.value, report.highest_rate.high) == (2.0, 4.0)
    assert [cell.level for cell in report.cells] == [1.0, 2.0, 4.0]
    assert report.grade == "VALID"  # that the last rate fails is what a search is for


def test_levels_are_cells_of_their_own() -> None:
    plan = Plan(load=Iterations(requests=10, concurrency=[1, 4]), output_tokens=11)
    records = [built(k) for k in range(10)] + [built(10 + k, level=1, block=5, start_ms=60_000 + k) for k in range(10)]

    cells = analyse(built_run(records, plan=plan)).cells

    assert [(cell.level, cell.metrics["ttft"].n_clusters) for cell in cells] == [(1.0, 10), (4.0, 5)]


def test_overlapping_requests_in_enough_blocks_have_blocks_as_clusters() -> None:
    plan = Plan(load=Iterations(requests=60, concurrency=[4]), output_tokens=11)
    records = [built(k, block=k // 5, start_ms=(k // 5) * 10_000 + k % 5) for k in range(60)]

    cell = only_cell(built_run(records, plan=plan))

    assert cell.metrics["ttft"].n_clusters == 12
    assert cell.metrics["gap"].n_clusters == 12


def test_the_rates_of_few_blocks_have_intervals_from_parts_of_them() -> None:
    plan = Plan(load=Iterations(requests=60, concurrency=[4]), output_tokens=11)
    # Two blocks of 30 requests, one sent about every 50 ms; each takes 200 ms.
    late_ms = [0 if k % 30 in {0, 29} else k * 37 % 41 for k in range(60)]
    records = [built(k, block=k // 30, start_ms=(k // 30) * 60_000 + (k % 30) * 50 + late_ms[k]) for k in range(60)]

    rate = only_cell(built_run(records, plan=plan)).totals["request_rps"]

    span_seconds = 2 * (29 * 0.05 + 0.2)
    assert rate.value == pytest.approx(60 / span_seconds)
    assert rate.low is not None
    assert rate.low < 60 / span_seconds


def test_cold_loads_are_reported_by_arm() -> None:
    report = analyse(built_run(cold_loads={0: [2.0, 3.0, 4.0]}))

    (cold,) = report.cold_load_seconds.values()
    assert (cold.median.value, cold.n, cold.unit) == (3.0, 3, "s")


def test_the_machine_is_summed_up_idle_and_busy() -> None:
    samples = quiet_samples(4)
    samples[2].cpu_percent = 100.0
    samples[1].other_cpu_percent = None

    machine = analyse(built_run(samples=samples, idle_after=quiet_samples(2))).machine

    assert set(machine) == {"busy", "idle_after"}
    assert machine["busy"]["cpu_percent"] == {"mean": 70.0, "max": 100.0}
    assert machine["busy"]["other_cpu_percent"] == {"mean": 3.0, "max": 3.0}
    assert machine["busy"]["other_top"] == ["indexer", "clock"]
    assert "frequency_mhz" not in machine["busy"]


def test_the_same_records_make_the_same_report() -> None:
    records = [built(k, ttft_ms=100 + k % 7) for k in range(50)]
    again = list(reversed(records))

    data, shuffled = built_run(records), built_run(again)
    shuffled.blocks = blocks_of(records)

    assert analyse(data) == analyse(shuffled)
