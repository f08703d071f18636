"""Whole runs against a calibrated server: figures, comparisons and grades that can be known beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytest

from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.events import BlockMeasured, Event
from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.measurement import Measurement
from ai_lab.benchmarks.plan import Arm, Iterations, OpenLoop, Plan, Prompts
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import ReportBody
from ai_lab.benchmarks.targets import Address
from ai_lab.settings import Settings
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Flavour
from tests.benchmarks.calibrated_truth import address
from tests.benchmarks.scripted_target import ScriptedTarget

NS_PER_MS = 1_000_000


async def run(
    server: CalibratedServer,
    *,
    flavour: Flavour = "ollama",
    models: tuple[str, ...] = (MODEL,),
    requests: int = 20,
    tokens: int = 12,
    concurrency: int = 4,
    tell: Callable[[Event], None] = lambda _: None,
    **more: Any,
) -> ReportBody:
    """Run a small benchmark as the measuring process does, and return its report."""
    server.configure(flavour=flavour)
    plan = Plan(
        arms=[Arm(model=name, url=server.url, name=name) for name in models],
        load=Iterations(requests=requests, concurrency=[concurrency]),
        output_tokens=tokens,
        idle_seconds=0,
        calibration_seconds=0,
        timeout_seconds=1,
        prompts=more.pop("prompts", Prompts(tokens=48)),
        **more,
    )
    addresses = [address(server, flavour).model_copy(update={"model": name}).to_dict() for name in models]
    stored = StoredRun(f"truth-{time.time_ns()}", plan)
    measurement = Measurement(Job("run", stored, addresses=addresses), Settings(_env_file=None), tell)
    await measurement.run()
    return analyse(measurement.data)


def codes(report: ReportBody) -> set[str]:
    return {reason.code for reason in report.reasons if reason.severity != "note"}


async def test_figures_are_those_of_the_log(server: CalibratedServer) -> None:
    server.configure(ttft_ms=40, gap_ms=8, gap_sigma=0.7, prefill_ms=0.5)
    report = await run(server, requests=32, tokens=30, concurrency=8)
    [cell] = report.cells
    log = server.log()[-32:]
    kept = 32 - (cell.stability.dropped_as_warmup if cell.stability else 0)  # a busy machine makes the first ones slow
    true = {
        "ttft": [(one.before_ns[0] - one.arrival_ns) / NS_PER_MS for one in log],
        "tpot": [(one.before_ns[-1] - one.before_ns[0]) / 29 / NS_PER_MS for one in log],
        "e2e": [(one.before_ns[-1] - one.arrival_ns) / NS_PER_MS for one in log],
    }
    for name, late_ms in (("ttft", 20), ("tpot", 2), ("e2e", 30)):  # on a busy machine
        assert cell.metrics[name].n == kept
        assert cell.metrics[name].median.value == pytest.approx(median(true[name]), abs=late_ms), name
    gaps = np.concatenate([np.diff(one.before_ns) for one in log]) / NS_PER_MS
    gap = cell.metrics["gap"]
    assert gap.n == kept * 29
    assert gap.median.value == pytest.approx(np.median(gaps), abs=2)
    assert gap.percentiles["p99"].value == pytest.approx(np.percentile(gaps, 99), rel=0.2)
    assert cell.prompt_tokens_median == median(one.prompt_tokens for one in log)
    assert cell.totals["server_client_decode_ratio"].value == pytest.approx(1, abs=0.02)
    assert not codes(report) & {"decode_disagrees", "wrong_counts", "short_outputs", "failures", "cache_hits"}


async def test_a_model_that_is_slower_is_found_to_be_and_by_how_much(server: CalibratedServer) -> None:
    server.configure(ttft_ms=20, gap_ms=6, models={MODEL: 1.0, "slower": 1.25})
    report = await run(server, models=(MODEL, "slower"), requests=16, concurrency=1, blocks=8)
    [found] = [one for one in report.comparisons if one.metric == "tpot"]
    assert (found.arm, found.baseline, found.verdict) == ("slower", MODEL, "slower")
    assert found.ratio == pytest.approx(1.25, rel=0.1)
    assert found.low is not None
    assert found.high is not None
    assert 1.03 < found.low < found.high


async def test_of_the_same_model_twice_no_large_difference_is_said(server: CalibratedServer) -> None:
    server.configure(ttft_ms=20, gap_ms=6, request_sigma=0.02, models={MODEL: 1.0, "same": 1.0})
    report = await run(server, models=(MODEL, "same"), requests=16, concurrency=1, blocks=8)
    [found] = [one for one in report.comparisons if one.metric == "tpot"]
    assert found.verdict in {"equivalent", "inconclusive"} or abs((found.ratio or 0) - 1) < 0.05


async def test_failures_are_counted_and_the_rest_is_measured(server: CalibratedServer) -> None:
    server.configure(fault="stream_error", fault_every=4)
    report = await run(server, requests=20)
    [cell] = report.cells
    assert cell.counts.ok + cell.counts.error == cell.counts.all == 20
    assert cell.counts.error in {5, 6}  # probes and warm-up were counted too
    assert 0 < cell.metrics["ttft"].n <= cell.counts.ok
    assert (report.grade, "failures" in codes(report)) == ("INVALID", True)
    assert sum(cell.errors.values()) == cell.counts.error


#: What is changed of the server, and the code of the reason.
DOUBTS: list[tuple[dict[str, Any], str]] = [
    ({"natural_tokens": 6}, "short_outputs"),
    ({"reports_usage": False}, "tokens_from_chunks"),
    ({"counts_off_by": -4}, "wrong_counts"),
    ({"counts_off_by": 3}, "wrong_counts"),
    ({"load_ms": 400, "evict_after": 15}, "model_reloaded"),
    ({"size_vram_bytes": 500_000, "size_bytes": 1_000_000}, "vram_partial"),
]


@pytest.mark.parametrize(("changes", "code"), DOUBTS)
async def test_what_makes_a_run_doubtful_is_said(server: CalibratedServer, changes: dict[str, Any], code: str) -> None:
    server.configure(**changes)
    report = await run(server)
    assert code in codes(report), [reason.text for reason in report.reasons]
    assert report.grade != "VALID"
    assert report.cells[0].counts.all == 20


async def test_cached_prompts_are_seen_where_the_server_tells_them_and_where_not(server: CalibratedServer) -> None:
    server.configure(prefill_ms=1)
    own = Prompts(texts=[f"{at} " + "word " * 60 for at in range(4)], keep_exact=True)
    told = await run(server, flavour="llama-server", prompts=own)
    assert {reason.code for reason in told.reasons} & {"cache_hits", "prefill_cached"}
    share = told.cells[0].totals["cached_share"].value
    log = server.log()[-20:]
    assert share == pytest.approx(sum(one.cached_tokens for one in log) / sum(one.prompt_tokens for one in log))
    hidden = await run(server, flavour="ollama", prompts=own)
    assert "prefill_cached" in {reason.code for reason in hidden.reasons}
    rate = hidden.cells[0].metrics.get("prefill_tps_server")
    assert rate is None or rate.median.value is None or rate.median.value < 3000  # 1 ms for each token


async def test_a_model_that_is_exchanged_in_mid_run_is_noticed(server: CalibratedServer) -> None:
    def exchange(event: Event) -> None:
        if isinstance(event, BlockMeasured):
            server.configure(digest="feed" * 16)

    report = await run(server, tell=exchange)
    assert "model_changed" in codes(report), [reason.text for reason in report.reasons]


async def test_a_context_that_ollama_has_loaded_now_is_not_what_requests_get(server: CalibratedServer) -> None:
    server.configure(context_tokens=32)
    report = await run(server, requests=4)
    assert report.cells[0].counts.ok == 4


async def test_a_server_whose_processes_are_not_found_is_not_taken_for_a_stranger() -> None:
    class Visible(ScriptedTarget):
        def process_ids(self) -> list[int]:
            return [1]

    plan = Plan(arms=[Arm(model="a"), Arm(model="b")])
    addresses = [Address(protocol="engine", model=name).to_dict() for name in "ab"]
    job = Job("run", StoredRun("r", plan), addresses=addresses)
    measurement = Measurement(job, Settings(_env_file=None), lambda _: None)
    measurement._targets = [Visible(), Visible()]
    assert measurement._server_pids() == [1, 1]
    measurement._targets = [Visible(), ScriptedTarget()]
    assert measurement._server_pids() == []


@pytest.mark.parametrize(("rate", "seconds", "streams"), [(2.0, 1.0, 8), (50.0, 1.2, 60), (9000.0, 5.0, 1024)])
def test_the_instrument_is_measured_with_as_many_streams_as_an_open_loop_will_have(
    rate: float, seconds: float, streams: int
) -> None:
    plan = Plan(arms=[Arm(model="a")], load=OpenLoop(rates=[1.0, rate]))
    address = Address(protocol="engine", model="a").to_dict()
    measurement = Measurement(Job("run", StoredRun("r", plan), addresses=[address]), Settings(_env_file=None), print)
    assert measurement._streams() == 8
    warm_up = Record(-1, -1, 0, 0, "warmup", "", sent_ns=1, end_ns=1 + round(seconds * 1e9))
    measurement.data.records.append(warm_up)
    assert measurement._streams() == streams
