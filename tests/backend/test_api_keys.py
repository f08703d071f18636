"""``/api-keys`` on a real server inside this process: the shapes and statuses that clients rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.settings import Settings
from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply
from tests.lab_server import LabServer, serve_lab
from tests.security.canary import new_secret

EARLIER = {"success", "message", "service_name"}


class Models(FakeServer):
    """An OpenAI-compatible server that knows one key."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return json_reply({"error": {"message": "no", "code": "invalid_api_key"}}, 401)
        return json_reply({"object": "list", "data": [{"id": "m", "object": "model"}]})


def _settings(folder: Path, url: str | None = None) -> Settings:
    return Settings(
        data_dir=folder / "data",
        config_dir=folder / "config",
        database_url=url,
        ollama_host="http://127.0.0.1:9",
        allowed_addresses=("127.0.0.1",),
        rate_limits=False,
    )


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serve_lab(_settings(tmp_path)) as server, _client(server) as client:
        yield client


def _client(server: LabServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=30)


async def _add(http: httpx.AsyncClient, service: str = "openai", **fields: Any) -> httpx.Response:
    return await http.post("/api-keys", json={"service_name": service, "api_key": new_secret(), **fields})


async def test_a_key_from_its_first_day_to_its_last(database_url: str, tmp_path: Path) -> None:
    async with serve_lab(_settings(tmp_path, database_url)) as server, _client(server) as http:
        made = await _add(http, details={"rate_limit": 60})
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        assert made.json().keys() == EARLIER | {"key", "warnings"}
        assert (made.json()["success"], made.json()["service_name"]) == (True, "openai")
        replaced = await _add(http)
        assert replaced.status_code == 200
        assert replaced.json()["key"]["id"] == made.json()["key"]["id"]
        assert replaced.json()["key"]["version"] == 2
        listed = (await http.get("/api-keys")).json()
        assert listed["configured_services"] == ["openai"]
        assert {"openai", "anthropic", "google", "azure", "ollama"} <= listed["supported_services"].keys()
        assert [key["label"] for key in listed["keys"]] == ["default"]
        assert listed["vault"] == (await http.get("/api-keys/status")).json()
        assert listed["vault"]["state"] == "open"
        renamed = await http.patch("/api-keys/openai", json={"label": "work"})
        assert (renamed.status_code, renamed.json()["key"]["label"]) == (200, "work")
        removed = await http.delete("/api-keys/openai", params={"label": "work"})
        assert (removed.status_code, removed.json()["key"]["state"]) == (200, "revoked")
        assert removed.json().keys() >= EARLIER
        assert (await http.get("/api-keys")).json()["keys"] == []
        history = (await http.get("/api-keys", params={"revoked": True})).json()
        assert [key["state"] for key in history["keys"]] == ["revoked"]
        assert history["configured_services"] == []
        entries = (await http.get("/api-keys/audit")).json()["data"]
        assert {entry["actor"] for entry in entries if entry["service_name"]} == {"api:local 127.0.0.1"}
        assert all(entry["request_id"] for entry in entries if entry["service_name"])


REFUSED: tuple[tuple[str, str, Any, int, str], ...] = (
    ("DELETE", "/api-keys/openai", None, 404, "api_key_not_found"),
    ("PATCH", "/api-keys/openai", {"label": "x"}, 404, "api_key_not_found"),
    ("POST", "/api-keys/openai/test", None, 404, "api_key_not_found"),
    ("POST", "/api-keys", {"service_name": "opnai", "api_key": "sk-1234567890"}, 404, "service_not_found"),
    ("POST", "/api-keys", {"service_name": "azure", "api_key": "a" * 32}, 400, "invalid_request"),
    ("POST", "/api-keys", {"service_name": "openai", "api_key": "sk-ant-api03-1234567"}, 422, "api_key_refused"),
    ("POST", "/api-keys", {"service_name": "openai", "api_key": ""}, 422, "api_key_refused"),
    ("POST", "/api-keys", {"service_name": "openai"}, 422, "invalid_request"),
    (
        "POST",
        "/api-keys",
        {"service_name": "x", "api_key": "x1", "base_url": "http://[fe80::1]"},
        400,
        "address_refused",
    ),
    ("GET", "/api-keys/rotation", None, 404, "not_found"),
    ("GET", "/api-keys/audit?after=nonsense", None, 404, "invalid_cursor"),
    ("GET", "/api-keys/audit/verify?anchor=1", None, 422, "invalid_request"),
    ("POST", "/api-keys/reset", {"i_know": False}, 422, "invalid_request"),
    ("POST", "/api-keys/reset", None, 422, "invalid_request"),
)


async def test_refusals_have_their_status_and_the_earlier_members(http: httpx.AsyncClient) -> None:
    for method, path, body, status, code in REFUSED:
        answer = await http.request(method, path, json=body)
        said = answer.json()
        assert (answer.status_code, said["code"]) == (status, code), (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (said["success"], said["message"]) == (False, said["detail"])
        assert code != "service_not_found" or "openai" in said["near_matches"]


async def test_a_stored_key_and_a_given_one_are_tested(http: httpx.AsyncClient) -> None:
    good, bad = new_secret(), new_secret()
    async with Models(good) as models:
        base_url = f"{models.origin}/v1"
        await http.post("/api-keys", json={"service_name": "own", "api_key": good, "base_url": base_url})
        stored = await http.post("/api-keys/own/test")
        assert stored.status_code == 200
        assert stored.json().keys() >= EARLIER | {"result", "label", "tested_at", "latency_ms", "status"}
        assert (stored.json()["success"], stored.json()["result"], stored.json()["label"]) == (True, "valid", "default")
        given = await http.post("/api-keys/own/test", json={"api_key": bad, "base_url": base_url})
        assert (given.status_code, given.json()["success"], given.json()["result"]) == (200, False, "invalid")
    (key,) = (await http.get("/api-keys")).json()["keys"]
    assert key["last_test"]["result"] == "valid"


async def test_another_address_clears_the_secret(http: httpx.AsyncClient) -> None:
    await _add(http, "own", base_url="http://127.0.0.1:9/v1")
    moved = await http.patch("/api-keys/own", json={"base_url": "http://127.0.0.1:10/v1"})
    assert moved.json()["key"]["state"] == "needs_reentry"
    used = await http.post("/api-keys/own/test")
    assert (used.status_code, used.json()["code"]) == (409, "api_key_unusable")
    assert (await http.get("/api-keys")).json()["configured_services"] == []


async def test_rotation_and_rekey_are_told(http: httpx.AsyncClient) -> None:
    before = (await http.get("/api-keys/status")).json()["data_key"]
    for number in range(5):
        await _add(http, label=f"key {number}")
    started = await http.post("/api-keys/rotate")
    assert started.status_code == 202
    rotation = started.json()
    for _ in range(400):
        if rotation["status"] == "complete":
            break
        await asyncio.sleep(0.05)
        rotation = (await http.get("/api-keys/rotation")).json()
    assert (rotation["total"], rotation["done"], rotation["unreadable"]) == (5, 5, 0)
    assert rotation["to_data_key"] == (await http.get("/api-keys/status")).json()["data_key"] != before
    changed = await http.post("/api-keys/rekey")
    assert changed.status_code == 200
    assert changed.json()["message"]
    assert (await http.post("/api-keys/openai/test?label=none")).status_code == 404
    assert (await http.get("/api-keys/audit/verify")).json()["is_intact"]


async def test_the_record_is_read_in_pages_and_checked_against_an_anchor(http: httpx.AsyncClient) -> None:
    for number in range(5):
        await _add(http, label=f"key {number}")
    first = (await http.get("/api-keys/audit", params={"limit": 3})).json()
    assert first["has_more"]
    rest = (await http.get("/api-keys/audit", params={"limit": 100, "after": first["after"]})).json()
    numbers = [entry["sequence"] for entry in first["data"] + rest["data"]]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == 1
    verdict = (await http.get("/api-keys/audit/verify")).json()
    assert verdict["is_intact"]
    head = (await http.get("/api-keys/status")).json()["audit_head"]
    await _add(http, label="one more")
    assert (await http.get("/api-keys/audit/verify", params={"anchor": head})).json()["is_intact"]
    forged = f"{head.partition(':')[0]}:{'0' * 64}"
    assert not (await http.get("/api-keys/audit/verify", params={"anchor": forged})).json()["is_intact"]


async def test_an_open_vault_is_not_reset(http: httpx.AsyncClient) -> None:
    await _add(http)
    answer = await http.post("/api-keys/reset", json={"i_know": True})
    assert answer.status_code == 409
    assert (await http.get("/api-keys")).json()["configured_services"] == ["openai"]
