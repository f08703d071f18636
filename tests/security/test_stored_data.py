"""Whoever can write to the database can break keys, but neither use one elsewhere nor change the record unseen."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.http_server import FakeServer, Reply, json_reply
from tests.security.canary import new_secret
from tests.server import ROOT, ServerProcess, environment, working_folder

SERVICES = (
    "swapped-a",
    "swapped-b",
    "planted",
    "flipped",
    "truncated",
    "emptied",
    "replayed",
    "moved",
    "renamed",
    "whole",
)
BROKEN = SERVICES[:-1]


class Models(FakeServer):
    """An OpenAI-compatible server that takes any key."""

    def default_reply(self, request: object) -> Reply:
        return json_reply({"object": "list", "data": [{"id": "m", "object": "model"}]})


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    """Give a lab that was stopped after it stored a key for each service."""
    folder = tmp_path_factory.mktemp("stored")
    settings = {"AI_LAB_CONFIG_DIR": str(folder / "config"), "AI_LAB_ALLOWED_ADDRESSES": "127.0.0.1"}
    return ServerProcess(folder / "data", settings | {"AI_LAB_RATE_LIMITS": "false"})


@contextmanager
def _database(server: ServerProcess) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(server.data_dir / "ai_lab.sqlite", timeout=10)) as db, db:
        yield db


def _tamper(db: sqlite3.Connection, older: str) -> None:
    tokens = dict(db.execute("SELECT service_name, token FROM vault_keys"))
    flipped = tokens["flipped"]
    middle = len(flipped) // 2
    changed = {
        "swapped-a": tokens["swapped-b"],
        "swapped-b": tokens["swapped-a"],
        "planted": new_secret(),
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


ELSEWHERE = ("http://127.0.0.1:9/v1", "http://127.0.0.1:9")


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    async with Models() as models:
        yield models


async def test_tampered_keys_are_recognised_and_reach_no_service(stopped: ServerProcess, models: Models) -> None:
    stopped.start()
    async with httpx.AsyncClient(base_url=stopped.url, timeout=30) as http:
        for service in SERVICES:
            body = {"service_name": service, "api_key": new_secret(), "base_url": f"{models.origin}/v1"}
            (await http.post("/api-keys", json=body)).raise_for_status()
        with _database(stopped) as db:
            ((older,),) = db.execute("SELECT token FROM vault_keys WHERE service_name = 'replayed'")
        body = {"service_name": "replayed", "api_key": new_secret(), "base_url": f"{models.origin}/v1"}
        (await http.post("/api-keys", json=body)).raise_for_status()
    assert stopped.stop() == 0
    with _database(stopped) as db:
        _tamper(db, older)
    models.requests.clear()
    stopped.start()
    try:
        async with httpx.AsyncClient(base_url=stopped.url, timeout=30) as http:
            names = [service if service != "renamed" else "renamed-by-hand" for service in BROKEN]
            for service in names:
                for use in (
                    http.post(f"/api-keys/{service}/test"),
                    http.post("/chat", json={"message": "x", "model": f"{service}/m"}),
                ):
                    answer = await use
                    assert (answer.status_code, answer.json()["code"]) == (409, "api_key_unusable"), (
                        service,
                        answer.text,
                    )
            assert models.requests == []
            keys = {key["service_name"]: key for key in (await http.get("/api-keys")).json()["keys"]}
            assert {service: keys[service]["state"] for service in names} == dict.fromkeys(names, "tampered")
            assert all(keys[service]["remedy"] for service in names)
            entries = (await http.get("/api-keys/audit", params={"limit": 100})).json()["data"]
            assert set(names) <= {entry["service_name"] for entry in entries if "tampered" in json.dumps(entry)}
            tested = (await http.post("/api-keys/whole/test")).json()
            assert tested["result"] in {"valid", "unknown"}
            assert models.requests
            assert (await http.get("/api-keys/audit/verify")).json()["is_intact"]
    finally:
        stopped.kill()


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
    last = db.execute("SELECT max(sequence) FROM vault_audit").fetchone()[0]
    columns = [row[1] for row in db.execute("PRAGMA table_info(vault_audit)") if row[1] != "sequence"]
    names = ", ".join(columns)
    copied = f"INSERT INTO vault_audit (sequence, {names}) SELECT ?, {names} FROM vault_audit WHERE sequence = ?"  # noqa: S608 - names of our own table
    db.execute(copied, (last + 1, sequence))
    return int(last) + 1


def _truncate(db: sqlite3.Connection, sequence: int) -> int:
    db.execute("DELETE FROM vault_audit WHERE sequence >= ?", (sequence,))
    return sequence


@pytest.mark.parametrize("tamper", [_flip, _flip_details, _delete, _reorder, _insert, _truncate])
def test_a_changed_record_is_found_and_its_place_is_named(audited: ServerProcess, tamper: Any) -> None:
    with closing(sqlite3.connect(audited.data_dir / "ai_lab.sqlite", timeout=10)) as db:
        saved = db.execute("SELECT * FROM vault_audit").fetchall()
        assert _verified(audited)["is_intact"]
        with db:
            expected = tamper(db, 3)
        try:
            verdict = _verified(audited)
            assert not verdict["is_intact"]
            assert verdict["first_bad_sequence"] == expected
            assert verdict["reason"]
        finally:
            with db:
                db.execute("DELETE FROM vault_audit")
                db.executemany(f"INSERT INTO vault_audit VALUES ({', '.join('?' * len(saved[0]))})", saved)  # noqa: S608 - question marks


def test_a_cut_record_is_found_against_an_anchor(audited: ServerProcess) -> None:
    head = _verified(audited)["head"]
    with closing(sqlite3.connect(audited.data_dir / "ai_lab.sqlite", timeout=10)) as db:
        saved = db.execute("SELECT * FROM vault_audit WHERE sequence > 4").fetchall()
        state = db.execute("SELECT audit_sequence, audit_mac FROM vault_state").fetchone()
        with db:  # so that the database alone tells a whole story
            db.execute("DELETE FROM vault_audit WHERE sequence > 4")
            ((mac,),) = db.execute("SELECT mac FROM vault_audit WHERE sequence = 4")
            db.execute("UPDATE vault_state SET audit_sequence = 4, audit_mac = ?", (mac,))
        assert _verified(audited)["is_intact"], "this is what no chain can see by itself"
        verdict = _verified(audited, head)
        with db:
            db.execute("UPDATE vault_state SET audit_sequence = ?, audit_mac = ?", state)
            db.executemany(f"INSERT INTO vault_audit VALUES ({', '.join('?' * len(saved[0]))})", saved)  # noqa: S608 - question marks
    assert not verdict["is_intact"]
    assert verdict["reason"]
    assert _verified(audited, head)["is_intact"]


def test_the_command_says_it_with_its_exit_code(audited: ServerProcess) -> None:
    command = [sys.executable, "-P", "-m", "ai_lab.cli", "vault", "audit", "--verify"]
    names = environment(audited.data_dir, audited.settings) | {"PYTHONPATH": str(ROOT), "API_PORT": str(audited.port)}

    def verify() -> int:
        where = working_folder(audited.data_dir)
        return subprocess.run(command, cwd=where, env=names, capture_output=True, timeout=60, check=False).returncode

    assert verify() == 0
    with _database(audited) as db:
        db.execute("UPDATE vault_audit SET outcome = outcome || 'x' WHERE sequence = 2")
    try:
        assert verify() == 1
    finally:
        with _database(audited) as db:
            db.execute("UPDATE vault_audit SET outcome = substr(outcome, 1, length(outcome) - 1) WHERE sequence = 2")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Give a running lab with some entries in its record."""
    folder = tmp_path_factory.mktemp("audited")
    with ServerProcess(folder / "data", {"AI_LAB_CONFIG_DIR": str(folder / "config")}) as server:
        for number in range(6):
            body = {"service_name": "openai", "api_key": new_secret(), "label": f"key {number}"}
            httpx.post(f"{server.url}/api-keys", json=body).raise_for_status()
        yield server


def _verified(server: ServerProcess, anchor: str | None = None) -> dict[str, Any]:
    query = {"anchor": anchor} if anchor else {}
    answer: dict[str, Any] = (
        httpx.get(f"{server.url}/api-keys/audit/verify", params=query, timeout=30).raise_for_status().json()
    )
    return answer


@pytest.mark.skipif(os.name == "nt", reason="the program of earlier users is started by its path")
def test_a_hostile_file_of_an_earlier_tool_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "conversations"
    source.mkdir()
    (source / "object.json").write_text('[{"__class__": "os.system", "__reduce__": ["id"], "role": {"py/object": 1}}]')
    (source / "numbers.json").write_text('[{"role": "User", "content": NaN, "timestamp": 1e999}]')
    (source / "deep.json").write_text("[" * 1_000_000)
    names = environment(tmp_path / "data", {"PYTHONPATH": str(ROOT)})
    command = [sys.executable, str(ROOT / "migrate_json_to_db.py"), "--source", str(tmp_path)]
    result = subprocess.run(
        command,
        cwd=working_folder(tmp_path / "data"),
        env=names,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert "uid=" not in result.stdout + result.stderr
    assert "deep.json" in result.stdout
    assert "1 damaged" in result.stdout
