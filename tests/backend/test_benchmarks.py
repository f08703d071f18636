"""Benchmarks over HTTP: the routes on a real server inside this process, a model server whose timing is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.benchmarks import Run
from ai_lab.benchmarks.reports import json_schema
from ai_lab.settings import Settings
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer
from tests.lab_server import LabServer, serve_lab

KEY = "sk-nobody-may-read-this"
#: A plan is quick with these: what they leave out, other tests look at.
QUICK = {"idle_seconds": 0, "calibration_seconds": 0, "warmup": 0, "output_tokens": 4}
FORMATS = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "benchstat": "text/plain; charset=utf-8",
}


@pytest.fixture(scope="module")
def models() -> Iterator[CalibratedServer]:
    with CalibratedServer(ttft_ms=10, gap_ms=2) as models:
        yield models


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LabServer]:
    async with serve_lab(Settings(data_dir=tmp_path, ollama_host="http://127.0.0.1:9")) as server:
        yield server


@pytest.fixture
async def client(server: LabServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


def plan(models: CalibratedServer, requests: int = 6, **fields: Any) -> dict[str, Any]:
    """Return a plan that is measured in a moment."""
    arm = {"model": MODEL, "url": models.url, **fields.pop("arm", {})}
    return {**QUICK, "arms": [arm], "load": {"mode": "closed", "requests": requests}, **fields}


async def watch(client: httpx.AsyncClient, run_id: str) -> list[tuple[str, Any]]:
    """Return the events of a run until the stream ends."""
    async with client.stream("GET", f"/benchmarks/{run_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join([part async for part in answer.aiter_text()])
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


async def ended(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """Return a run once it has ended."""
    await watch(client, run_id)
    run: dict[str, Any] = (await client.get(f"/benchmarks/{run_id}")).json()
    return run


async def test_a_run_from_its_start_to_its_reports(client: httpx.AsyncClient, models: CalibratedServer) -> None:
    started = await client.post("/benchmarks", json=plan(models, title="mine"))
    assert started.status_code == 202
    run_id = started.json()["id"]
    assert started.headers["location"] == f"/benchmarks/{run_id}"

    first, second, left = await asyncio.gather(watch(client, run_id), watch(client, run_id), _leave(client, run_id))
    for events in (first, second):
        assert [name for name, _ in events] == ["benchmark.progress"] * (len(events) - 1) + ["benchmark.done"]
        assert events[0][1]["total"] == 6
        assert events[-1][1]["status"] == "complete"
        assert "report" not in events[-1][1]
    assert left == "event: benchmark.progress"
    assert [name for name, _ in await watch(client, run_id)] == ["benchmark.done"]  # it ended long ago

    run = Run.model_validate((await client.get(f"/benchmarks/{run_id}")).json())
    assert run.report
    assert run.report.cells[0].counts.ok == 6
    for fmt, media_type in FORMATS.items():
        report = await client.get(f"/benchmarks/{run_id}/report", params={"format": fmt})
        assert (report.status_code, report.headers["content-type"]) == (200, media_type)
        assert run_id in report.headers["content-disposition"]
        assert run_id in report.text or fmt == "markdown"
        if fmt == "jsonl":
            kinds = [json.loads(line)["type"] for line in report.text.splitlines()]
            assert kinds[:7] == ["run"] + ["record"] * 6
    assert (await client.get("/benchmarks/schema")).json() == json_schema()

    counted = f'ai_lab_benchmark_runs_total{{status="complete",grade="{run.grade}"}} 1.0'
    assert counted in (await client.get("/metrics/prometheus")).text

    assert (await client.delete(f"/benchmarks/{run_id}")).status_code == 204
    assert (await client.get(f"/benchmarks/{run_id}")).json()["code"] == "benchmark_not_found"


async def _leave(client: httpx.AsyncClient, run_id: str) -> str:
    async with client.stream("GET", f"/benchmarks/{run_id}/events") as answer:
        async for line in answer.aiter_lines():
            return line
    return ""


async def test_the_list_is_short_whatever_was_asked(client: httpx.AsyncClient, models: CalibratedServer) -> None:
    texts = ["x" * 10_000] * 20
    ids = []
    for number in range(3):
        mine = plan(models, 1, title=str(number), prompts={"texts": texts, "keep_exact": True})
        ids.append((await client.post("/benchmarks", json=mine)).json()["id"])
    first = (await client.get("/benchmarks", params={"limit": 2})).json()
    rest = (await client.get("/benchmarks", params={"limit": 2, "after": first["after"]})).json()
    assert [run["id"] for run in first["data"] + rest["data"]] == ids[::-1]
    assert rest["after"] is None
    assert len(json.dumps(first)) < 10_000
    assert (await client.get(f"/benchmarks/{ids[0]}")).json()["plan"]["prompts"]["texts"] == texts


async def test_a_lost_answer_starts_nothing_twice(client: httpx.AsyncClient, models: CalibratedServer) -> None:
    header = {"Idempotency-Key": "first"}
    runs = [(await client.post("/benchmarks", json=plan(models, 1), headers=header)).json() for _ in range(2)]
    assert runs[0]["id"] == runs[1]["id"]
    other = await client.post("/benchmarks", json=plan(models, 2), headers=header)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")

    await ended(client, runs[0]["id"])
    header = {"Idempotency-Key": "second"}
    again = [(await client.post(f"/benchmarks/{runs[0]['id']}/rerun", headers=header)).json() for _ in range(2)]
    assert again[0]["id"] == again[1]["id"] != runs[0]["id"]
    assert again[0]["rerun_of"] == runs[0]["id"]
    assert again[0]["plan"] == runs[0]["plan"]
    await ended(client, again[0]["id"])
    compared = await client.post("/benchmarks/compare", json={"runs": [runs[0]["id"], again[0]["id"]]})
    assert compared.status_code == 200
    assert {one["is_historical"] for one in compared.json()["comparisons"]} == {True}

    two_at_a_time = plan(models, load={"mode": "closed", "requests": 2, "concurrency": [2]})
    strange = (await client.post("/benchmarks", json=two_at_a_time)).json()["id"]
    await ended(client, strange)
    refused = await client.post("/benchmarks/compare", json={"runs": [runs[0]["id"], strange]})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert "no arm and level in common" in refused.json()["detail"]


async def test_a_run_is_cancelled_and_gone_on_with(client: httpx.AsyncClient, models: CalibratedServer) -> None:
    run_id = (await client.post("/benchmarks", json=plan(models, 200, blocks=10))).json()["id"]
    for method, path in (("DELETE", ""), ("POST", "/resume")):
        refused = await client.request(method, f"/benchmarks/{run_id}{path}")
        assert (refused.status_code, refused.json()["code"]) == (409, "benchmark_running")
    await _until_measured(client, run_id)
    assert (await client.post(f"/benchmarks/{run_id}/cancel")).status_code == 200
    cancelled = await ended(client, run_id)
    assert cancelled["status"] == "cancelled"
    assert 0 < cancelled["report"]["cells"][0]["counts"]["ok"] < 200
    assert (await client.post(f"/benchmarks/{run_id}/cancel")).json() == cancelled

    assert (await client.post(f"/benchmarks/{run_id}/resume")).status_code == 202
    resumed = await ended(client, run_id)
    assert (resumed["status"], resumed["resumed"]) == ("complete", 1)
    assert resumed["report"]["cells"][0]["counts"]["ok"] == 200
    refused = await client.post(f"/benchmarks/{run_id}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "benchmark_not_resumable")


async def _until_measured(client: httpx.AsyncClient, run_id: str) -> None:
    async with client.stream("GET", f"/benchmarks/{run_id}/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and json.loads(line[6:]).get("done", 0) > 25:  # a block and more
                return
    raise AssertionError("it ended before")


async def test_a_key_is_used_and_never_seen_again(
    client: httpx.AsyncClient, models: CalibratedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    started = await client.post("/benchmarks", json=plan(models, 2, arm={"api_key": KEY, "name": "guarded"}))
    run_id = started.json()["id"]
    answers = [started.text, json.dumps(await ended(client, run_id)), (await client.get("/benchmarks")).text]
    answers += [(await client.get(f"/benchmarks/{run_id}/report", params={"format": fmt})).text for fmt in FORMATS]
    missing = await client.post(f"/benchmarks/{run_id}/rerun")
    assert (missing.status_code, missing.json()["param"]) == (400, "api_keys")
    assert "'guarded'" in missing.json()["detail"]
    wrong = await client.post(f"/benchmarks/{run_id}/rerun", json={"api_keys": {"guarded": f"{KEY}\n"}})
    assert wrong.status_code == 422
    again = await client.post(f"/benchmarks/{run_id}/rerun", json={"api_keys": {"guarded": KEY}})
    assert (await ended(client, again.json()["id"]))["status"] == "complete"
    answers += [missing.text, wrong.text, again.text, caplog.text]
    assert [text for text in answers if KEY in text] == []
    assert _files_with(KEY.encode(), tmp_path) == []


def _files_with(secret: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
