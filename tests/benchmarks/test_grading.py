"""The grade of a run: every reason is given when it should be, with what was seen, its limit and a remedy, else not."""

from __future__ import annotations

import ast
import inspect
import math
from array import array
from typing import Any

import pytest

from ai_lab.benchmarks.analysis import machine_checks, request_checks, timing_checks
from ai_lab.benchmarks.analysis.machine_figures import load_of
from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.plan import Arm, EngineOptions, GoodputSearch, Iterations, OpenLoop, Plan, Prompts, Slo
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Estimate, Grade, Reason
from tests.benchmarks.built_records import (
    MS,
    ORIGIN_NS,
    SECOND,
    built,
    built_run,
    failed,
    quiet_samples,
    sound_instrument,
)

GRADES: dict[str, Grade] = {"invalid": "INVALID", "suspect": "SUSPECT", "note": "VALID"}


def reasons_of(data: RunData) -> dict[str, Reason]:
    return {reason.code: reason for reason in analyse(data).reasons}


def requests(count: int = 20, **changes: Any) -> list[Record]:
    return [built(index, **changes) for index in range(count)]


def changed(count: int, *, most: int = 20, **changes: Any) -> list[Record]:
    """Return requests of which the first ``count`` are different."""
    return [built(index, **(changes if index < count else {})) for index in range(most)]


def refused(count: int, most: int = 40) -> RunData:
    return built_run([failed(index) if index % 20 < count else built(index) for index in range(most)])


def watched(count: int = 40, hog: range = range(0), **changes: Any) -> RunData:
    """Return a run on a quiet machine, with ``changes`` in the samples of ``hog``."""
    samples = quiet_samples(count)
    for number in hog:
        for name, value in changes.items():
            setattr(samples[number], name, value)
    return built_run(samples=samples)


def open_loop(late_ms: float = 0, step_late_ms: float = 0) -> RunData:
    records = [built(k, block=0, start_ms=k * 100) for k in range(100)]
    for k, record in enumerate(records):
        record.dispatched_ns = (record.intended_ns or 0) + int((late_ms + k * step_late_ms) * MS)
    return built_run(records, plan=Plan(load=OpenLoop(requests=100, rates=[10]), output_tokens=11))


def described(**after: Any) -> RunData:
    """Return a run whose server says ``after`` about itself in the end."""
    data = built_run()
    (target,) = data.provenance["targets"].values()
    target["after"] |= after
    return data


def drifting(percent: float, **changes: Any) -> RunData:
    records = [built(k, gap_ms=10 * (1 + percent / 100 * k / 59) * (1 + 0.002 * ((k * 7) % 5 - 2))) for k in range(60)]
    return built_run(records, **changes)


def waving(concurrency: int) -> RunData:
    """Return a run whose speed goes up and down by 5 % twice."""
    plan = Plan(load=Iterations(requests=60, concurrency=[concurrency]), output_tokens=11)
    return built_run([built(k, gap_ms=10 + 0.5 * math.sin(4 * math.pi * k / 59)) for k in range(60)], plan=plan)


def on_gpu_machine(engine: EngineOptions | None = None) -> RunData:
    """Return a run of a model without a layer on the GPU that is there."""
    plan = Plan(arms=[Arm(engine=engine)], load=Iterations(requests=20), output_tokens=11)
    return built_run(plan=plan, samples=quiet_samples(gpus=[{"index": 0}]))


def long_answers(**options: Any) -> RunData:
    """Return a run whose answers have 30 tokens where the plan says 11."""
    plan = Plan(arms=[Arm(options=options)], load=Iterations(requests=20), output_tokens=11)
    return built_run(requests(tokens=30), plan=plan)


def decoding(ratio: float) -> RunData:
    return built_run(requests(server_ms={"prompt_ms": 90.0, "decode_ms": 100 / ratio}))


def repeated(texts: str, **options: Any) -> RunData:
    plan = Plan(arms=[Arm(options=options)], load=Iterations(), prompts=Prompts(mode="repeat"), output_tokens=11)
    records = [built(k, prompt_sha256="same", output_sha256=text) for k, text in enumerate(texts)]
    return built_run(records, plan=plan)


def bundled(size: int) -> RunData:
    """Return a run whose chunks arrive ``size`` at a time."""
    records = requests(tokens=12)
    for record in records:
        stamps = record.chunk_ns.tolist()
        record.chunk_ns = array("q", [stamps[number - number % size] for number in range(12)])
        record.last_token_ns = record.chunk_ns[-1]
        record.server_ms["decode_ms"] = 110.0
    return built_run(records, plan=Plan(load=Iterations(requests=20), output_tokens=12))


def energy(counter_watts: float, power_watts: float = 300.0) -> RunData:
    samples = quiet_samples(80)
    for sample in samples:
        joules = (sample.at_ns - ORIGIN_NS) / SECOND * counter_watts
        sample.gpus = [{"index": 0, "power_watts": power_watts, "energy_joules": joules}]
    return built_run(samples=samples)


def hit(count: int, cached: int, prompt_tokens: int = 200) -> RunData:
    return built_run(changed(count, cached_tokens=cached, prompt_tokens=prompt_tokens))


def repeated_texts(cached: int) -> RunData:
    """Return a run of two texts of the user's own, sent again and again as they are."""
    plan = Plan(load=Iterations(requests=20), prompts=Prompts(texts=["a", "b"], keep_exact=True), output_tokens=11)
    texts = ("a" * 64, "b" * 64)
    return built_run([built(k, prompt_sha256=texts[k % 2], cached_tokens=cached) for k in range(20)], plan=plan)


def uneven_hits() -> RunData:
    """Return a run whose prompts begin like earlier ones for some 20 to 77 tokens: no template does that."""
    return built_run([built(k, prompt_tokens=200, cached_tokens=20 + 3 * k) for k in range(20)])


def loading(index: int, load_ms: float = 900.0, *, has_warmup: bool = True) -> RunData:
    records = requests()
    records[index].server_ms["load_ms"] = load_ms
    return built_run(records + ([built(50, phase="warmup", block=-1)] if has_warmup else []))


def lagging(lag_ms: float) -> RunData:
    data = built_run()
    for block in data.blocks:
        block.loop_lag_p99_ms = lag_ms
    return data


def hidden_cache(count: int) -> RunData:
    fast = {"prompt_ms": 9.0, "decode_ms": 100.0}
    return built_run([built(k, cached_tokens=None, **({"server_ms": fast} if k < count else {})) for k in range(20)])


def gpu_reasons(*reasons: str) -> RunData:
    return watched(hog=range(3), gpus=[{"index": 0, "throttle_reasons": list(reasons)}])


Case = tuple[str, str, RunData, RunData]


def uncalibrated(seconds: float) -> RunData:
    plan = Plan(load=Iterations(requests=20), output_tokens=11, calibration_seconds=seconds)
    return built_run(instrument=None, plan=plan)


def at_concurrency(concurrency: int, requests_in_all: int) -> RunData:
    plan = Plan(load=Iterations(requests=requests_in_all, concurrency=[concurrency]), output_tokens=11)
    return built_run([built(k, block=0) for k in range(requests_in_all)], plan=plan)


def with_slots(slots: int) -> RunData:
    plan = Plan(load=Iterations(requests=20, concurrency=[2]), output_tokens=11)
    data = built_run(requests(), plan=plan)
    for target in data.provenance["targets"].values():
        target["before"]["slots"] = slots
    return data


CASES: list[Case] = [
    # code, severity, a run that has it, one that just has not
    ("nothing_measured", "invalid", built_run([]), built_run([built(0)])),
    ("incomplete", "note", built_run(expected_requests=30), built_run(expected_requests=20)),
    ("no_success", "invalid", built_run([failed(k) for k in range(20)]), refused(1)),
    ("failures", "suspect", refused(2), built_run()),
    ("failures", "invalid", refused(3), built_run()),
    ("tokens_unknown", "invalid", built_run(requests(completion_tokens=None, token_source=None)), built_run()),
    ("tokens_unknown", "suspect", built_run(changed(1, completion_tokens=None, token_source=None)), built_run()),
    ("tokens_from_chunks", "suspect", built_run(changed(1, token_source="chunks")), built_run()),
    ("wrong_counts", "suspect", built_run(changed(1, completion_tokens=7)), built_run(changed(1, tokens=12))),
    ("wrong_counts", "suspect", built_run(changed(1, completion_tokens=13)), built_run(changed(1, tokens=12))),
    (
        "short_outputs",
        "suspect",
        built_run(changed(2, status="short", tokens=8)),
        built_run(changed(1, status="short")),
    ),
    ("prefill_cached", "suspect", hidden_cache(2), hidden_cache(0)),
    ("cache_hits", "suspect", hit(20, 150), hit(20, 4)),
    ("cache_hits", "suspect", uneven_hits(), hit(1, 50)),
    ("template_cached", "note", hit(20, 30), hit(20, 120)),
    ("cache_hits", "suspect", repeated_texts(30), hit(20, 30)),
    ("decode_disagrees", "suspect", decoding(1.02), decoding(1.005)),
    ("decode_disagrees", "suspect", decoding(0.98), decoding(0.995)),
    ("stream_buffered", "suspect", bundled(4), built_run()),
    ("unstable", "suspect", drifting(12), drifting(0)),
    ("unstable", "suspect", drifting(-5), drifting(1)),
    ("unstable", "suspect", waving(1), waving(4)),
    ("few_requests", "note", built_run(requests(9)), built_run(requests(10))),
    ("nondeterministic", "note", repeated("aaaaaaaaab"), repeated("aaaaaaaaaa")),
    ("nondeterministic", "note", repeated("aaaaaaaaab"), repeated("aaaaaaaaab", temperature=0.7)),
    ("dispatch_delay", "invalid", open_loop(late_ms=1.2), open_loop(late_ms=0.9)),
    ("rate_not_kept", "invalid", open_loop(step_late_ms=8), open_loop(step_late_ms=3)),
    ("model_reloaded", "suspect", loading(7), loading(7, 100.0)),
    ("model_reloaded", "suspect", loading(0), loading(0, has_warmup=False)),
    ("no_samples", "note", built_run(samples=[]), built_run()),
    ("other_cpu_unknown", "note", watched(hog=range(40), other_cpu_percent=None), built_run()),
    (
        "other_cpu",
        "suspect",
        watched(hog=range(20, 24), other_cpu_percent=45.0, other_top=[("hog", 44.0)]),
        watched(hog=range(20, 22), other_cpu_percent=14.0),
    ),
    ("steal", "suspect", watched(hog=range(5, 30), steal_percent=3.0), watched(hog=range(5, 8), steal_percent=9.0)),
    ("swap", "suspect", watched(hog=range(1), swap_in_bytes=9 << 20), watched(hog=range(1), swap_in_bytes=8192)),
    ("cpu_throttled", "suspect", watched(hog=range(1), cpu_throttle_events=2), built_run()),
    ("gpu_throttled", "suspect", gpu_reasons("hw_thermal_slowdown"), gpu_reasons("gpu_idle", "sw_power_cap")),
    ("model_changed", "suspect", described(digest="sha256:2"), described(size_bytes=300)),
    ("model_evicted", "suspect", described(is_loaded=False), described(is_loaded=True)),
    ("vram_partial", "suspect", described(size_vram_bytes=90, size_loaded_bytes=120), described()),
    ("vram_partial", "suspect", described(size_vram_bytes=90), described(size_vram_bytes=90, size_loaded_bytes=90)),
    ("vram_partial", "suspect", described(size_vram_bytes=60), described(size_vram_bytes=0)),
    ("vram_partial", "suspect", on_gpu_machine(), on_gpu_machine(engine=EngineOptions(gpu_layers=0))),
    ("wrong_counts", "suspect", long_answers(), long_answers(max_tokens=30)),
    ("few_waves", "note", at_concurrency(5, 20), at_concurrency(4, 20)),
    ("slots_exceeded", "note", with_slots(1), with_slots(2)),
    ("not_calibrated", "note", uncalibrated(0), uncalibrated(3)),
    ("instrument_too_slow", "invalid", built_run(instrument=sound_instrument(achieved_rate=90.0)), built_run()),
    (
        "instrument_error_ttft",
        "suspect",
        built_run(instrument=sound_instrument(ttft_error_ms=Estimate(value=-2.5))),
        built_run(instrument=sound_instrument(ttft_error_ms=Estimate(value=1.9))),
    ),
    (
        "instrument_error_gap",
        "suspect",
        built_run(instrument=sound_instrument(gap_error_ms=0.3)),
        built_run(instrument=sound_instrument(gap_error_ms=0.19)),
    ),
    ("client_lag", "suspect", lagging(2.5), lagging(1.5)),
    ("energy_disagrees", "note", energy(250), energy(290)),
]


@pytest.mark.parametrize(("code", "severity", "bad", "good"), CASES, ids=[f"{one[0]}-{one[1]}" for one in CASES])
def test_each_reason_is_given_when_it_should_be_and_not_otherwise(
    code: str, severity: str, bad: RunData, good: RunData
) -> None:
    report = analyse(bad)
    reason = next(one for one in report.reasons if one.code == code)

    assert reason.severity == severity
    assert len(reason.text) > 40
    assert reason.text.endswith(".")
    if GRADES[severity] != "VALID" or all(one.severity == "note" for one in report.reasons):
        assert report.grade in {GRADES[severity], "INVALID"}
    assert code not in reasons_of(good)


def test_every_code_that_can_be_given_is_tried_here() -> None:
    written = set()
    for module in (machine_checks, request_checks, timing_checks):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding":
                code = node.args[1]
                written |= {code.value} if isinstance(code, ast.Constant) else set()

    assert len(written) > 25
    assert written <= {case[0] for case in CASES}


def test_the_worst_of_many_levels_stands_for_all() -> None:
    plan = Plan(load=Iterations(requests=20, concurrency=[1, 2, 4]), output_tokens=11)
    records = []
    for level, failures in enumerate((2, 12, 5)):
        records += [
            (failed if k < failures else built)(level * 20 + k, level=level, block=level * 20 + k) for k in range(20)
        ]

    (reason,) = [one for one in analyse(built_run(records, plan=plan)).reasons if one.code == "failures"]

    assert reason.value == pytest.approx(0.6)
    assert "at concurrency 2" in reason.text
    assert reason.text.endswith("(The worst of 3 levels with this finding.)")  # nobody takes the others for clean
    assert "The server answered with status 500." in reason.text


def test_each_arm_has_reasons_of_its_own_and_the_gravest_come_first() -> None:
    plan = Plan(arms=[Arm(name="one"), Arm(name="two")], load=Iterations(requests=20), output_tokens=11)
    records = [built(k, arm=k % 2, block=k) for k in range(40)]
    records[0], records[1:15:2] = failed(0, block=0), [failed(k, arm=1, block=k) for k in range(1, 15, 2)]

    reasons = analyse(built_run(records, plan=plan)).reasons

    assert [(one.arm, one.severity) for one in reasons if one.code == "failures"] == [
        ("two", "invalid"),
        ("one", "suspect"),
    ]


def test_a_hog_is_named_with_its_worst_second_and_the_mean_of_the_run() -> None:
    reason = reasons_of(watched(hog=range(20, 25), other_cpu_percent=51.0, other_top=[("hog", 50.0), ("x", 1.0)]))[
        "other_cpu"
    ]

    assert reason.value == 51.0
    assert "hog, x" in reason.text
    assert "9.0 % on average" in reason.text  # (35 * 3 + 5 * 51) / 40


def test_rates_beyond_capacity_are_what_a_search_looks_for() -> None:
    load = GoodputSearch(slo=Slo(ttft_ms=150), start_rate=1, requests=10, precision=0.9)
    records = [built(k, block=0, start_ms=k * 1000) for k in range(10)]
    records += [failed(10 + k, block=1, level=1, start_ms=60_000 + k * 500) for k in range(10)]
    data = built_run(records, plan=Plan(load=load, output_tokens=11), searched=[(1.0, 0), (2.0, 1)])

    report = analyse(data)

    assert report.grade == "VALID"
    assert {one.code: one.severity for one in report.reasons} == {"no_success": "note"}


@pytest.mark.parametrize("jump_seconds", [100, -100])
def test_worst_windows_do_not_reach_across_a_pause_or_a_new_clock(jump_seconds: int) -> None:
    samples = quiet_samples(8, other_cpu_percent=0.0)
    for sample in samples[4:]:
        sample.at_ns += jump_seconds * SECOND
    for sample in samples[2:6]:
        sample.other_cpu_percent = 100.0

    load = load_of(samples, "other_cpu_percent", window_seconds=1.0)

    assert load is not None
    assert (load.mean, load.worst) == (50.0, 50.0)


def test_a_run_shorter_than_a_window_is_judged_as_a_whole() -> None:
    load = load_of(quiet_samples(2, other_cpu_percent=20.0), "other_cpu_percent", window_seconds=1.0)

    assert load is not None
    assert load.worst == 20.0
