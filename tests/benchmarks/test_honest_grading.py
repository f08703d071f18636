"""Whole runs that something spoils: the grade says so and why, and what was right has no such reason.

Each arm of a run has a server of its own that does one thing wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from ai_lab.benchmarks.plan import Arm, Plan, Prompts
from ai_lab.benchmarks.schemas import Progress, Run
from ai_lab.benchmarks.service import Benchmarks
from tests.benchmarks.benches import ON_SQLITE
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Logged
from tests.benchmarks.whole_runs import Meanwhile, Told, plan, told_of

pytestmark = ON_SQLITE
REQUESTS = 12
#: What the servers of these tests do wrong. What a busy machine does to a run is not among them.
OF_SERVERS = {
    "short_outputs",
    "cache_hits",
    "prefill_cached",
    "wrong_counts",
    "tokens_from_chunks",
    "model_reloaded",
    "model_evicted",
    "model_changed",
    "vram_partial",
    "failures",
    "no_success",
    "incomplete",
}
HOG = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@contextmanager
def servers(**calibrations: dict[str, Any]) -> Iterator[dict[str, CalibratedServer]]:
    """Start quick servers, each with its calibration."""
    with ExitStack() as running:
        yield {
            name: running.enter_context(CalibratedServer(**{"ttft_ms": 5, "gap_ms": 2, **values}))
            for name, values in calibrations.items()
        }


def asked_of(running: dict[str, CalibratedServer], *, requests: int = REQUESTS, **more: Any) -> Plan:
    """Return a plan with an arm for each server; those that do not speak Ollama are asked by OpenAI's API."""
    arms = [Arm(model=MODEL, url=server.url, name=name) for name, server in running.items()]
    return plan(*arms, **{"requests": requests, "concurrency": 1, "warmup": 1, **more})


def found(told: Told, *, notes: bool = False) -> dict[str | None, set[str]]:
    """Return the reasons of each arm that its server is to blame for."""
    by_arm: dict[str | None, set[str]] = {name: set() for name in told.run.plan.arm_names()}
    for reason in told.report.reasons:
        if reason.code in OF_SERVERS and (notes or reason.severity != "note"):
            by_arm.setdefault(reason.arm, set()).add(reason.code)
    return by_arm


def cached_share(log: list[Logged]) -> float:
    return sum(one.cached_tokens for one in log) / sum(one.prompt_tokens for one in log)


def when_blocks_are_done(actions: dict[int, Callable[[], None]]) -> Meanwhile:
    """Do something each time that so many blocks are complete."""

    async def meanwhile(benchmarks: Benchmarks, run_id: str) -> None:
        left = dict(actions)
        async for event in benchmarks.events(run_id):
            assert not isinstance(event, Run), "the run has ended before"
            for blocks in [one for one in left if isinstance(event, Progress) and event.blocks_done >= one]:
                left.pop(blocks)()
            if not left:
                return

    return meanwhile


@contextmanager
def hogs(folder: Path) -> Iterator[Callable[[], None]]:
    """Give what starts as many busy processes as there are cores; they end with the block."""
    program = folder / "cpu_hog"
    program.symlink_to(sys.executable)
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.extend(subprocess.Popen([program, "-c", HOG]) for _ in range(os.cpu_count() or 1))

    try:
        yield start
    finally:
        for one in running:
            one.kill()
            one.wait()


async def test_a_hog_in_mid_run_is_named(database_url: str, server: CalibratedServer, tmp_path: Path) -> None:
    server.configure(ttft_ms=20, gap_ms=10)
    with hogs(tmp_path) as start:
        asked = asked_of({"m": server}, requests=24, tokens=20, blocks=12)
        told = await told_of(database_url, asked, when_blocks_are_done({2: start}))
    assert told.report.grade in {"SUSPECT", "INVALID"}
    reason = told.reason("other_cpu")
    assert reason.value is not None
    assert reason.value > 40
    assert reason.text in told.markdown
    busy = [sample for kind, samples in told.samples if kind == "busy" for sample in samples]
    names = [{name for name, _ in sample.other_top} for sample in busy]
    before = [sample.other_cpu_percent or 0 for sample, some in zip(busy, names, strict=True) if "cpu_hog" not in some]
    if (busy[0].other_cpu_percent or 0) < 20:  # else the machine was busy with other things, which may be named first
        assert any("cpu_hog" in some for some in names)
        assert "cpu_hog" in reason.text or max(before) >= 20


async def test_each_server_gets_the_reason_that_it_gives_and_no_other(database_url: str) -> None:
    with servers(
        right={},
        short={"natural_tokens": 6},
        low={"counts_off_by": -4},
        high={"counts_off_by": 3},
        uncounted={"flavour": "openai", "reports_usage": False},
        sticky={"flavour": "llama-server", "template_head_tokens": 150},
        partial={"size_vram_bytes": 500_000},
    ) as running:
        told = await told_of(database_url, asked_of(running, prompts=Prompts(tokens=250)))
        log = running["sticky"].log()[-REQUESTS:]
    assert (told.run.status, told.report.grade) == ("complete", "SUSPECT")
    # On a busy machine a rate may be so far above the others that it looks like one from a cache.
    assert {arm: codes - {"prefill_cached"} for arm, codes in found(told, notes=True).items()} == {
        "right": set(),
        "short": {"short_outputs"},
        "low": {"wrong_counts"},
        "high": {"wrong_counts"},
        "uncounted": {"tokens_from_chunks"},
        "sticky": {"cache_hits"},
        "partial": {"vram_partial"},
    }
    cells = {cell.arm: cell for cell in told.report.cells}
    assert {cell.counts.all for cell in cells.values()} == {REQUESTS}
    assert (cells["short"].counts.short, cells["short"].completion_tokens_median) == (REQUESTS, 6)
    assert cells["uncounted"].token_source == "chunks"
    assert cells["sticky"].totals["cached_share"].value == pytest.approx(cached_share(log))
    assert f"{cached_share(log):.1%} of the prompt tokens" in told.reason("cache_hits", "sticky").text


async def test_caches_that_know_a_users_own_texts(database_url: str) -> None:
    """Texts that begin alike and are sent as they are: one server tells of its cache, the other does not."""
    texts = [f"{'the same beginning ' * 20} and then number {at} {'of many words ' * 5}" for at in range(REQUESTS)]
    with servers(told={"flavour": "llama-server"}, hidden={"prefill_ms": 1, "ttft_ms": 1}) as running:
        asked = asked_of(running, prompts=Prompts(texts=texts * 2, keep_exact=True), requests=2 * REQUESTS)
        told = await told_of(database_url, asked)
        logs = {name: server.log()[-2 * REQUESTS :] for name, server in running.items()}
    assert found(told, notes=True) == {"told": {"cache_hits"}, "hidden": {"prefill_cached"}}
    cells = {cell.arm: cell for cell in told.report.cells}
    assert cells["told"].totals["cached_share"].value == pytest.approx(cached_share(logs["told"]))
    # By the server's own formula the rate of every repeated prompt would be some 40 times the true 1000 per second.
    assert sum(one.cached_tokens > 0.9 * one.prompt_tokens for one in logs["hidden"]) >= REQUESTS
    rate = cells["hidden"].metrics.get("prefill_tps_server")
    assert rate is None or rate.max is None or rate.max < 10_000


async def test_a_cache_on_purpose_is_a_figure_and_no_fault(database_url: str, server: CalibratedServer) -> None:
    server.configure(flavour="llama-server", ttft_ms=5, gap_ms=1)
    told = await told_of(database_url, asked_of({"m": server}, prompts=Prompts(mode="repeat", tokens=64)))
    assert found(told) == {"m": set()}
    share = told.cell.totals["cached_share"].value
    assert share == pytest.approx(cached_share(server.log()[-REQUESTS:]))
    assert share is not None
    assert share > 0.9


async def test_models_that_are_exchanged_or_thrown_out_in_mid_run(database_url: str) -> None:
    slow: dict[str, Any] = {"ttft_ms": 20, "gap_ms": 5}  # so that there is time to do something in mid-run
    with servers(right=slow, exchanged=slow, reloaded={**slow, "load_ms": 400}, gone=slow) as running:
        asked = asked_of(running, requests=10, blocks=10, idle_seconds=0.7)
        actions = {
            8: lambda: running["exchanged"].configure(digest="feed" * 16),
            9: running["reloaded"].evict,
            40: running["gone"].evict,  # the last block: the machine is looked at before the server is asked again
        }
        told = await told_of(database_url, asked, when_blocks_are_done(actions))
    assert found(told, notes=True) == {
        "right": set(),
        "exchanged": {"model_changed"},
        "reloaded": {"model_reloaded"},
        "gone": {"model_evicted"},
    }
    assert "the model's digest changed" in told.reason("model_changed").text
    about = told.report.provenance["targets"]["exchanged"]
    assert about["before"]["digest"] != about["after"]["digest"] == "feed" * 16
    assert "loaded the model once during the run (up to 4" in told.reason("model_reloaded").text
    # Loading is part of the one request that waited for it, and of no other.
    waits = [one for one in told.records if one.phase == "measured" and one.arm == 2]
    times = sorted(((one.first_token_ns or 0) - (one.sent_ns or 0)) / 1e6 for one in waits)
    assert times[-1] > 400
    assert median(times) < 400
    assert sum(one.server_ms.get("load_ms", 0) > 250 for one in waits) == 1


async def test_requests_that_fail_now_and_then_are_counted(database_url: str) -> None:
    """Also of the questions before the run every third one fails."""
    with servers(
        told={"fault": "stream_error", "fault_every": 3}, reset={"fault": "reset", "fault_every": 3}
    ) as running:
        told = await told_of(database_url, asked_of(running, requests=30))
    assert (told.run.status, told.report.grade) == ("complete", "INVALID")
    assert found(told, notes=True) == {"told": {"failures"}, "reset": {"failures"}}
    for cell, status in zip(told.report.cells, ("error", "aborted"), strict=True):
        failed = getattr(cell.counts, status)
        assert failed in {9, 10, 11}
        assert cell.counts.ok + failed == 30
        assert cell.metrics["ttft"].adjusted_percentiles["p90"] is None  # beyond it are those that failed
        assert told.reason("failures", cell.arm).value == failed / 30
