"""Whole runs against what servers do wrong: each is told as an error or in a graded report, and nothing is lost."""

from __future__ import annotations

import socket

import psutil

from ai_lab.benchmarks.plan import Arm, Iterations, Prompts
from ai_lab.benchmarks.service import Benchmarks
from tests.benchmarks.benches import ON_SQLITE, until_measuring
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer
from tests.benchmarks.odd_server import TOKENS, OddServer
from tests.benchmarks.whole_runs import Told, plan, told_of

pytestmark = ON_SQLITE
REQUESTS = 6


async def run(database_url: str, *models: str, requests: int = REQUESTS, timeout_seconds: float = 2.0) -> Told:
    """Measure models of the odd server side by side."""
    async with OddServer() as server:
        arms = [Arm(model=name, url=server.base_url, name=name) for name in models]
        asked = plan(
            *arms,
            load=Iterations(requests=requests, concurrency=[requests]),
            tokens=TOKENS,
            blocks=1,
            warmup=0,
            prompts=Prompts(texts=["Tell a tale."]),
            timeout_seconds=timeout_seconds,
        )
        told = await told_of(database_url, asked)
    measured = [one for one in told.records if one.phase == "measured"]
    assert len(measured) == requests * len(models)
    assert all(one.error and one.error_code for one in measured if one.status not in {"ok", "short"})
    assert {cell.arm: cell.counts.all for cell in told.report.cells} == dict.fromkeys(models, requests)
    return told


def counts(told: Told) -> dict[str, dict[str, int]]:
    return {cell.arm: {name: n for name, n in cell.counts.model_dump().items() if n} for cell in told.report.cells}


async def test_answers_that_are_strange_are_graded_and_explained(database_url: str) -> None:
    told = await run(
        database_url, "right", "nothing", "one-token", "half-character", "every-third", "cut", "no-usage", "slow"
    )
    assert (told.run.status, told.run.error, told.report.grade) == ("complete", None, "INVALID")
    assert counts(told) == {
        "right": {"ok": 6},
        "nothing": {"error": 6},
        "one-token": {"short": 6},
        "half-character": {"ok": 6},
        "every-third": {"ok": 4, "error": 2},
        "cut": {"aborted": 6},
        "no-usage": {"ok": 6},
        "slow": {"ok": 6},
    }
    assert "sent no text" in told.reason("no_success", "nothing").text
    assert "broke off: the connection was lost" in told.reason("no_success", "cut").text
    assert "2 of 6 requests failed (33.3%)" in told.reason("failures", "every-third").text
    assert "CUDA out of memory" in told.reason("failures", "every-third").text
    assert "ended before 4 tokens" in told.reason("short_outputs", "one-token").text
    assert told.reason("tokens_from_chunks", "no-usage")
    assert not {one.code for one in told.report.reasons if one.arm == "right"} & {
        "failures",
        "no_success",
        "short_outputs",
    }
    by_arm = {name: [one for one in told.records if told.run.plan.arms[one.arm].name == name] for name in counts(told)}
    assert {note for one in by_arm["half-character"] for note in one.notes} == {"bytes that are no UTF-8"}
    assert {len(one.chunk_ns) for one in by_arm["cut"]} == {2}  # what had come is kept
    assert {one.error_code for one in by_arm["cut"]} == {"provider_stream_broken"}
    for reason in told.report.reasons:
        assert reason.text.split(".")[0] in told.markdown.replace("\\/", "/")


async def test_what_is_no_answer_is_bounded_and_explained(database_url: str) -> None:
    odd = ("slower", "busy", "page", "elsewhere", "long-line", "endless", "alive")
    told = await run(database_url, "right", *odd, requests=4, timeout_seconds=0.6)
    assert (told.run.status, told.report.grade) == ("complete", "INVALID")
    assert counts(told) == {
        "right": {"ok": 4},
        "slower": {"timeout": 4},
        "busy": {"error": 4},
        "page": {"aborted": 4},
        "elsewhere": {"error": 4},
        "long-line": {"error": 4},
        "endless": {"error": 4},
        "alive": {"timeout": 4},
    }
    said = {name: told.reason("no_success", name).text for name in odd}
    for name, part in {
        "slower": "was silent for 0.6 s. Raise timeout_seconds",
        "busy": "HTTP 429: too many requests. Try again in 7 s",
        "page": "sent a web page instead of an answer. Check its address",
        "elsewhere": "Redirects are not followed: set its final address",
        "long-line": "a line of more than 10 MB",
        "endless": "did not stop: 288 pieces of text came",
        "alive": "kept its answer open for more than 2.4 s without text",
    }.items():
        assert part in said[name]
    endless = [one for one in told.records if one.arm == 1 + odd.index("endless")]
    assert {len(one.chunk_ns) for one in endless} == {289}
    assert {len(one.chunk_ns) for one in told.records if one.arm == 1} == {2}  # what came before the silence is kept


async def test_a_server_that_is_not_there(database_url: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    told = await told_of(database_url, plan(Arm(model="m", url=url)))
    assert (told.run.status, told.run.error_code, told.run.report) == ("failed", "provider_unavailable", None)
    assert url in (told.run.error or "")


async def test_a_model_that_the_server_has_not(database_url: str, server: CalibratedServer) -> None:
    told = await told_of(database_url, plan(Arm(model="calibrate:1b", url=server.url)))
    assert (told.run.status, told.run.error_code, told.run.report) == ("failed", "model_not_found", None)
    assert f"Did you mean {MODEL}?" in (told.run.error or "")


async def test_a_server_that_dies_in_mid_run_leaves_a_report_of_what_was_measured(database_url: str) -> None:
    with CalibratedServer(ttft_ms=5, gap_ms=1) as mortal:

        async def kill(benchmarks: Benchmarks, run_id: str) -> None:
            await until_measuring(benchmarks, run_id)
            psutil.Process(mortal.pid).kill()

        asked = plan(Arm(model=MODEL, url=mortal.url), requests=4000, concurrency=2)
        told = await told_of(database_url, asked, kill)
    assert (told.run.status, told.run.error_code) == ("failed", "benchmark_failed")
    assert "20 requests in a row failed" in (told.run.error or "")
    assert "The run ends with what was measured" in (told.run.error or "")
    assert told.cell.counts.ok > 0
    assert told.cell.counts.all == len([one for one in told.records if one.phase == "measured"]) < 4000
    assert told.cell.metrics["ttft"].median.value
    assert told.reason("incomplete").value == told.cell.counts.all
    assert (told.run.error or "").split(".")[0].replace("/", "\\/") in told.markdown
    rate = told.cell.totals["output_tps"]
    assert rate.low is None or rate.low >= 0  # requests without a token make no rate below zero
