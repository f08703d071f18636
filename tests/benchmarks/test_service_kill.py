"""``kill -9`` of a real server in the middle of a real run: the next start measures what is left and nothing else."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.server import ServerProcess

_WAIT_SECONDS = 60.0
#: Ten blocks of a fifth of a second each.
_PLAN = {
    "arms": [{"model": "echo/echo"}],
    "load": {"mode": "open", "requests": 100, "rates": [50.0], "arrivals": "constant"},
    "blocks": 10,
    "output_tokens": 4,
    "warmup": 1,
    "idle_seconds": 0,
    "calibration_seconds": 0,
}


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_killed_server_repeats_no_complete_block(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    settings = {"LOG_LEVEL": "WARNING"}
    if kind == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres_url")
    with ServerProcess(tmp_path / "data", settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        run_id = client.post("/benchmarks", json=_PLAN).raise_for_status().json()["id"]
        complete = _watched(client, run_id, 3)
        children = server.children()
        server.kill()
        assert children
        assert psutil.wait_procs(children, timeout=30)[1] == []

        server.start()

        run = _until(client, run_id, lambda run: run["status"] not in {"queued", "running"})
        assert (run["status"], run["resumed"], run["error"]) == ("complete", 1, None)
        lines = client.get(f"/benchmarks/{run_id}/report", params={"format": "jsonl"}).text.splitlines()
        records = [values for line in lines if (values := json.loads(line))["type"] == "record"]
        measured = Counter(record["index"] for record in records if record["phase"] == "measured")
        discarded = {record["block"] for record in records if record["phase"] == "discarded"}
        assert len(measured) == 100
        assert set(measured.values()) == {1}
        assert len(discarded) <= 1
        assert all(block >= complete for block in discarded)
        assert "Traceback" not in server.log


def _watched(client: httpx.Client, run_id: str, blocks: int) -> int:
    """Return at the moment at which so many blocks are said to be complete."""
    with client.stream("GET", f"/benchmarks/{run_id}/events", timeout=_WAIT_SECONDS) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and json.loads(line[6:]).get("blocks_done", 0) >= blocks:
                return blocks
    raise AssertionError("the run ended before it was to be killed")


def _until(client: httpx.Client, run_id: str, holds: Any) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        run: dict[str, Any] = client.get(f"/benchmarks/{run_id}").raise_for_status().json()
        if holds(run):
            return run
        assert run["status"] in {"queued", "running"}, run
        time.sleep(0.05)
    raise AssertionError(f"not within {_WAIT_SECONDS:g} s: {run}")
