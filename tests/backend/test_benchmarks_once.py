"""``POST /benchmark/llm``: one request, one answer as earlier notebooks read it; and a server that stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from ai_lab.settings import Settings
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer
from tests.lab_server import LabServer, serve_lab
from tests.server import ServerProcess

ADDRESS = "/benchmark/llm"


@pytest.fixture
def models() -> Iterator[CalibratedServer]:
    with CalibratedServer(ttft_ms=30, gap_ms=2) as models:
        yield models


@pytest.fixture
async def server(models: CalibratedServer, tmp_path: Path) -> AsyncIterator[LabServer]:
    async with serve_lab(Settings(data_dir=tmp_path, ollama_host=models.url)) as server:
        yield server


@pytest.fixture
async def client(server: LabServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


async def test_earlier_notebooks_read_their_figures(client: httpx.AsyncClient) -> None:
    answer = await client.post(ADDRESS, params={"model_name": f"ollama/{MODEL}", "prompt": "Why?", "iterations": 3})
    assert answer.status_code == 200
    figures = answer.json()
    assert (figures["model_name"], figures["prompt_length"], figures["iterations"]) == (f"ollama/{MODEL}", 4, 3)
    times = figures["times"]
    assert len(times) == 3
    assert figures["avg_time"] == pytest.approx(sum(times) / 3)
    assert (figures["min_time"], figures["max_time"]) == (min(times), max(times))
    assert figures["total_time"] == pytest.approx(sum(times))
    assert min(times) >= 0.03
    assert figures["ttft_ms"]["value"] >= 29
    assert figures["grade"] in {"VALID", "SUSPECT", "INVALID"}
    assert (await client.get(f"/benchmarks/{figures['benchmark_id']}")).json()["status"] == "complete"


async def test_a_benchmark_without_an_answer_is_a_failure(client: httpx.AsyncClient, models: CalibratedServer) -> None:
    models.configure(fault="stream_error")
    answer = await client.post(ADDRESS, params={"model_name": f"ollama/{MODEL}", "iterations": 2})
    assert (answer.status_code, answer.json()["code"]) == (502, "benchmark_failed")
    [run] = (await client.get("/benchmarks")).json()["data"]
    assert run["id"] in answer.json()["detail"]


async def test_a_client_that_leaves_cancels_the_run(client: httpx.AsyncClient, models: CalibratedServer) -> None:
    models.configure(gap_ms=1000)
    asking = asyncio.create_task(client.post(ADDRESS, params={"model_name": f"ollama/{MODEL}", "iterations": 500}))
    async with asyncio.timeout(30):
        while not (runs := (await client.get("/benchmarks")).json()["data"]):  # noqa: ASYNC110 - as a user would look
            await asyncio.sleep(0.05)
        asking.cancel()
        while (await client.get(f"/benchmarks/{runs[0]['id']}")).json()["status"] != "cancelled":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


def test_a_server_that_stops_says_so_to_those_who_wait(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", {"AI_LAB_DEFAULT_MODEL": "echo/echo"})
    answers: list[tuple[int, str]] = []

    def ask(method: str, path: str) -> None:
        answer = httpx.request(method, f"{server.url}{path}", timeout=60)
        answers.append((answer.status_code, answer.text))

    with server:
        run = httpx.post(f"{server.url}/benchmarks", json={"idle_seconds": 60}, timeout=60).json()
        waiting = [
            threading.Thread(target=ask, args=("GET", f"/benchmarks/{run['id']}/events")),
            threading.Thread(target=ask, args=("POST", ADDRESS)),
        ]
        for one in waiting:
            one.start()
        while len(httpx.get(f"{server.url}/benchmarks", timeout=60).json()["data"]) < 2:
            pass
        assert server.stop(timeout_seconds=30) == 0
        for one in waiting:
            one.join()
        (refused, problem), (status, stream) = sorted(answers, reverse=True)
        assert (refused, status) == (503, 200)
        assert '"code":"server_stopping"' in problem
        assert '"code":"server_stopping"' in stream
        assert "Traceback" not in server.log

        server.start()
        statuses = {one["status"] for one in httpx.get(f"{server.url}/benchmarks", timeout=60).json()["data"]}
        assert statuses <= {"queued", "running"}
