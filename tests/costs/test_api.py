"""``/costs`` and ``/budgets`` of a real server, whose echo has a price: a dollar a token."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.settings import PriceEntry, Settings
from tests.lab_server import serve_lab


@pytest.fixture
async def server(tmp_path: Path, migrated_file: Path) -> AsyncIterator[httpx.AsyncClient]:
    prices = {"echo/*": PriceEntry(input=1_000_000, output=1_000_000)}
    file = tmp_path / "lab.sqlite"
    shutil.copy(migrated_file, file)
    settings = Settings.load(
        data_dir=tmp_path, database_url=f"sqlite+aiosqlite:///{file}", enable_metrics=False, prices=prices
    )
    async with serve_lab(settings) as served, httpx.AsyncClient(base_url=served.url, timeout=30) as http:
        yield http


async def say(server: httpx.AsyncClient, message: str = "hi") -> httpx.Response:
    return await server.post("/chat", json={"message": message, "model": "echo/echo"})


async def test_what_was_spent_is_summed_exported_and_reckoned_again(server: httpx.AsyncClient) -> None:
    before = (await server.get("/costs/summary")).json()
    said = await say(server)
    assert said.status_code == 200
    assert said.json()["cost"] == 2.0
    assert said.headers["x-ai-lab-cost"] == "2"
    summary = (await server.get("/costs/summary", params={"group_by": "service"})).json()
    assert summary["totals"]["attempts"] == before["totals"]["attempts"] + 1
    assert summary["totals"]["cost_usd"] == (before["totals"]["cost_usd"] or 0) + 2
    assert [group["key"] for group in summary["groups"]] == ["echo"]
    assert (await server.get("/costs/summary", params={"to": "2020-01-01"})).json()["totals"]["attempts"] == 0
    exported = await server.get("/costs/export")
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    assert exported.headers["content-disposition"].startswith('attachment; filename="ai-lab-costs-')
    lines = list(csv.DictReader(io.StringIO(exported.text, newline="")))
    assert lines[-1]["cost_usd"] == "2.000000000"
    assert lines[-1]["session_id"] == said.json()["session_id"]
    for body in (None, {"dry_run": True}, {"from": "2026-01-01", "to": None}):
        again = (await server.post("/costs/reprice", json=body)).json()
        assert (again["changed"], again["difference_usd"]) == (0, 0)
        assert again["dry_run"] == bool(body and body.get("dry_run"))


async def test_a_budget_from_its_making_to_its_end(server: httpx.AsyncClient) -> None:
    new = {"name": "echo", "period": "day", "service": "echo", "soft_usd": 0, "hard_usd": 1_000_000}
    made = await server.post("/budgets", json=new, headers={"idempotency-key": "once"})
    assert made.status_code == 201
    place = made.headers["location"]
    assert (await server.get(place)).json() == made.json()
    again = await server.post("/budgets", json=new, headers={"idempotency-key": "once"})
    assert again.json()["id"] == made.json()["id"]
    taken = await server.post("/budgets", json=new)
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    warned = (await say(server)).json()
    assert warned["warnings"][0].startswith("The soft limit of the budget 'echo' is reached: $")
    changed = await server.patch(place, json={"hard_usd": 1, "soft_usd": None})
    assert (changed.status_code, changed.json()["state"], changed.json()["soft_usd"]) == (200, "hard", None)
    refused = await say(server)
    assert (refused.status_code, refused.json()["code"]) == (402, "budget_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    openai = await server.post("/v1/chat/completions", json={"model": "echo/echo", "messages": [_USER]})
    assert (openai.status_code, openai.json()["error"]["code"]) == (402, "budget_exceeded")
    (listed,) = (await server.get("/budgets")).json()["budgets"]
    assert listed["id"] == made.json()["id"]
    assert (await server.delete(place)).status_code == 204
    assert (await server.delete(place)).json()["code"] == "budget_not_found"
    assert (await say(server)).status_code == 200


_USER = {"role": "user", "content": "hi"}
_VALID: dict[str, Any] = {"name": "x", "period": "day", "hard_usd": 1}


_SENSELESS: list[Any] = [
    _VALID | {"name": ""},
    _VALID | {"name": "two words"},
    _VALID | {"name": "a/b"},
    _VALID | {"name": "x" * 65},
    _VALID | {"name": "nul\0"},
    _VALID | {"period": "year"},
    _VALID | {"hard_usd": -1},
    _VALID | {"hard_usd": True},
    _VALID | {"hard_usd": "1"},
    _VALID | {"hard_usd": 1e300},
    _VALID | {"soft_usd": 2},
    _VALID | {"hard_usd": None},
    _VALID | {"service": "a/b"},
    _VALID | {"model": ""},
    _VALID | {"model": "m" * 256},
    _VALID | {"more": 1},
    [],
]


async def test_a_service_that_nobody_has_gets_no_budget(server: httpx.AsyncClient) -> None:
    misspelt = _VALID | {"name": "misspelt", "service": "ecko"}
    made = (await server.post("/budgets", json=misspelt | {"service": "echo"})).json()
    for asked in (server.post("/budgets", json=misspelt), server.patch(f"/budgets/{made['id']}", json=misspelt)):
        refused = await asked
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert refused.json()["detail"] == "No service is called 'ecko'. Did you mean echo?"
    assert (await server.delete(f"/budgets/{made['id']}")).status_code == 204


async def test_what_is_not_there_or_makes_no_sense(server: httpx.AsyncClient) -> None:
    for body in _SENSELESS:
        answer = await server.post("/budgets", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), body
    for method in ("GET", "PATCH", "DELETE"):
        missing = await server.request(method, "/budgets/nothing", json={} if method == "PATCH" else None)
        assert (missing.status_code, missing.json()["code"]) == (404, "budget_not_found")
    for path in ("/costs/summary?group_by=weather", "/costs/summary?from=1", "/costs/export?to=2026-02-30"):
        assert (await server.get(path)).status_code == 422
    assert (await server.post("/costs/reprice", json={"since": "2026-01-01"})).status_code == 422
    backwards = {"from": "2026-01-02", "to": "2026-01-01"}
    for asked in (
        server.get("/costs/summary", params=backwards),
        server.get("/costs/export", params=backwards),
        server.post("/costs/reprice", json=backwards),
        server.get("/traces", params={"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
    ):
        refused = await asked
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        assert "`from` must be before `to`" in refused.json()["detail"]
    one_day = {"from": "2026-01-02", "to": "2026-01-02"}
    assert (await server.get("/costs/summary", params=one_day)).status_code == 200
    for change in ({"hard_usd": -1}, {"name": None}, {"period": None}, {"name": ""}):
        assert (await server.patch("/budgets/nothing", json=change)).status_code == 422
