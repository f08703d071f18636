"""Whoever can write to the database can break keys, but neither use one elsewhere nor change the record unseen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.settings import Settings
from tests.fakes.http_server import FakeServer, Reply, json_reply
from tests.lab_server import serve_lab
from tests.security.canary import new_secret

SERVICES = ("swapped-a", "swapped-b", "planted", "flipped", "truncated", "emptied", "replayed", "moved", "renamed")
ELSEWHERE = ("http://127.0.0.1:9/v1", "http://127.0.0.1:9")


class Models(FakeServer):
    """An OpenAI-compatible server that takes any key."""

    def default_reply(self, request: object) -> Reply:
        return json_reply({"object": "list", "data": [{"id": "m", "object": "model"}]})


@asynccontextmanager
async def _lab(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        data_dir=folder / "data",
        config_dir=folder / "config",
        ollama_host="http://127.0.0.1:9",
        allowed_addresses=("127.0.0.1",),
        rate_limits=False,
    )
    async with serve_lab(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield http


@contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "data" / "ai_lab.sqlite", timeout=10)) as db, db:
        yield db


def _tamper(db: sqlite3.Connection, older: str) -> None:
    tokens = dict(db.execute("SELECT service_name, token FROM vault_keys"))
    flipped = tokens["flipped"]
    middle = len(flipped) // 2
    changed = {
        "swapped-a": tokens["swapped-b"],
        "swapped-b": tokens["swapped-a"],
        "planted": "sk-proj-a-text-in-the-open-is-no-token-of-the-vault",
        "flipped": flipped[:middle] + ("A" if flipped[middle] != "A" else "B") + flipped[middle + 1 :],
        "truncated": tokens["truncated"][:-8],
        "emptied": "",
        "replayed": older,
    }
    for service, token in changed.items():
        db.execute("UPDATE vault_keys SET token = ? WHERE service_name = ?", (token, service))
    # The address that the secret is bound to, and the name that it is found by.
    db.execute("UPDATE vault_keys SET base_url = ?, base_origin = ? WHERE service_name = 'moved'", ELSEWHERE)
    db.execute("UPDATE vault_keys SET service_name = 'renamed-by-hand' WHERE service_name = 'renamed'")


async def test_tampered_keys_are_recognised_and_reach_no_service(tmp_path: Path) -> None:
    async with Models() as models:

        async def store(service: str, secret: str) -> None:
            body = {"service_name": service, "api_key": secret, "base_url": f"{models.origin}/v1"}
            (await http.post("/api-keys", json=body)).raise_for_status()

        whole = new_secret()
        async with _lab(tmp_path) as http:
            for service in SERVICES:
                await store(service, new_secret())
            await store("whole", whole)
            with _database(tmp_path) as db:
                ((older,),) = db.execute("SELECT token FROM vault_keys WHERE service_name = 'replayed'")
            await store("replayed", new_secret())
        with _database(tmp_path) as db:
            _tamper(db, older)
        models.requests.clear()
        async with _lab(tmp_path) as http:
            names = [service if service != "renamed" else "renamed-by-hand" for service in SERVICES]
            for service in names:
                tested = await http.post(f"/api-keys/{service}/test")
                used = await http.post("/chat", json={"message": "x", "model": f"{service}/m"})
                for answer in (tested, used):
                    assert (answer.status_code, answer.json()["code"]) == (409, "api_key_unusable"), answer.text
            keys = {key["service_name"]: key for key in (await http.get("/api-keys")).json()["keys"]}
            assert {service: keys[service]["state"] for service in names} == dict.fromkeys(names, "tampered")
            assert all(keys[service]["remedy"] for service in names)
            sent = {request.headers.get("authorization") for request in models.requests}
            assert sent <= {f"Bearer {whole}", None}
            entries = (await http.get("/api-keys/audit", params={"limit": 100})).json()["data"]
            assert set(names) <= {entry["service_name"] for entry in entries if "tampered" in json.dumps(entry)}
            models.requests.clear()
            await http.post("/api-keys/whole/test")
            assert models.requests
            assert (await http.get("/api-keys/audit/verify")).json()["is_intact"]


def _flip(db: sqlite3.Connection, sequence: int) -> int:
    db.execute("UPDATE vault_audit SET actor = actor || 'x' WHERE sequence = ?", (sequence,))
    return sequence


def _flip_details(db: sqlite3.Connection, sequence: int) -> int:
    db.execute("UPDATE vault_audit SET details = '{\"x\": 1}' WHERE sequence = ?", (sequence,))
    return sequence


def _delete(db: sqlite3.Connection, sequence: int) -> int:
    db.execute("DELETE FROM vault_audit WHERE sequence = ?", (sequence,))
    return sequence


def _reorder(db: sqlite3.Connection, sequence: int) -> int:
    for before, after in ((sequence, -1), (sequence + 1, sequence), (-1, sequence + 1)):
        db.execute("UPDATE vault_audit SET sequence = ? WHERE sequence = ?", (after, before))
    return sequence


def _insert(db: sqlite3.Connection, sequence: int) -> int:
    row = db.execute("SELECT * FROM vault_audit WHERE sequence = ?", (sequence,)).fetchone()
    last = int(db.execute("SELECT max(sequence) FROM vault_audit").fetchone()[0])
    _put_back(db, [(last + 1, *row[1:])])
    return last + 1


def _truncate(db: sqlite3.Connection, sequence: int) -> int:
    db.execute("DELETE FROM vault_audit WHERE sequence >= ?", (sequence,))
    return sequence


def _put_back(db: sqlite3.Connection, rows: list[Any]) -> None:
    db.executemany(f"INSERT INTO vault_audit VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608 - question marks


@pytest.fixture
async def audited(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Give a running lab with some entries in its record."""
    async with _lab(tmp_path) as http:
        for number in range(6):
            body = {"service_name": "openai", "api_key": new_secret(), "label": f"key {number}"}
            (await http.post("/api-keys", json=body)).raise_for_status()
        yield http


async def _verified(http: httpx.AsyncClient, anchor: str | None = None) -> dict[str, Any]:
    answer = await http.get("/api-keys/audit/verify", params={"anchor": anchor} if anchor else {})
    verdict: dict[str, Any] = answer.raise_for_status().json()
    return verdict


async def test_a_changed_record_is_found_and_its_place_is_named(audited: httpx.AsyncClient, tmp_path: Path) -> None:
    ways: list[Callable[[sqlite3.Connection, int], int]] = [_flip, _flip_details, _delete, _reorder, _insert, _truncate]
    with _database(tmp_path) as db:
        saved = db.execute("SELECT * FROM vault_audit ORDER BY sequence").fetchall()
    for tamper in ways:
        assert (await _verified(audited))["is_intact"]
        with _database(tmp_path) as db:
            expected = tamper(db, 3)
        verdict = await _verified(audited)
        assert (verdict["is_intact"], verdict["first_bad_sequence"]) == (False, expected), tamper.__name__
        assert verdict["reason"]
        with _database(tmp_path) as db:
            db.execute("DELETE FROM vault_audit")
            _put_back(db, saved)


async def test_a_cut_record_is_found_against_an_anchor_alone(audited: httpx.AsyncClient, tmp_path: Path) -> None:
    head = (await _verified(audited))["head"]
    with _database(tmp_path) as db:  # so that the database by itself tells a whole story
        db.execute("DELETE FROM vault_audit WHERE sequence > 4")
        ((mac,),) = db.execute("SELECT mac FROM vault_audit WHERE sequence = 4")
        db.execute("UPDATE vault_state SET audit_sequence = 4, audit_mac = ?", (mac,))
    assert (await _verified(audited))["is_intact"], "docs/security.md says that this is not seen"
    verdict = await _verified(audited, head)
    assert not verdict["is_intact"]
    assert verdict["reason"]
