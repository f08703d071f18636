"""A stolen database is worth nothing, and nobody else on the machine can read the key that would change that."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ai_lab.settings import Settings
from tests.lab_server import serve_lab
from tests.security.canary import files_with_secrets, new_secret

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files have no modes there")


@asynccontextmanager
async def _lab(folder: Path, data: str = "data", config: str = "config") -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data_dir=folder / data, config_dir=folder / config, ollama_host="http://127.0.0.1:9")
    async with serve_lab(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield http


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Give the folder of a stopped lab that has stored two keys, and has lost one of them again."""
    async with _lab(tmp_path) as http:
        for service, prefix in (("openai", "sk-"), ("anthropic", "sk-ant-api03-")):
            body = {"service_name": service, "api_key": new_secret(prefix)}
            (await http.post("/api-keys", json=body)).raise_for_status()
        (await http.delete("/api-keys/anthropic")).raise_for_status()
        assert files_with_secrets(tmp_path) == []  # while it runs: with the write-ahead log
    return tmp_path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_belong_to_one_user_and_the_root_key_is_not_with_the_data(folder: Path) -> None:
    (key,) = (folder / "config").glob("master*.key")
    assert {_mode(path) for path in (folder / "config").iterdir()} == {0o600}
    assert {_mode(folder / "config"), _mode(folder / "data")} == {0o700}
    text = key.read_bytes().strip()
    assert len(text) >= 44
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if text in path.read_bytes() or path.suffix == ".key" or "token" in path.name] == []


async def test_a_stolen_database_shows_names_and_opens_for_nobody(folder: Path) -> None:
    shutil.copytree(folder / "data", folder / "stolen")
    assert files_with_secrets(folder / "stolen") == []
    async with _lab(folder, "stolen", "elsewhere") as http:
        listed = (await http.get("/api-keys")).raise_for_status().json()
        assert [(key["service_name"], key["label"]) for key in listed["keys"]] == [("openai", "default")]
        assert listed["vault"]["state"] == "sealed"
        assert listed["vault"]["remedy"]
        for path, body in (
            ("/api-keys", {"service_name": "openai", "api_key": new_secret()}),
            ("/api-keys/openai/test", None),
            ("/api-keys/rotate", None),
            ("/api-keys/rekey", None),
            ("/chat", {"message": "x", "model": "openai/gpt-5"}),
        ):
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "vault_sealed"), answer.text
        assert (await http.patch("/api-keys/openai", json={"label": "x"})).status_code == 503
        assert (await http.delete("/api-keys/openai")).status_code == 503
        health = await http.get("/health/detailed")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert (await http.post("/chat", json={"message": "x", "model": "echo/echo"})).status_code == 200
        assert (await http.get("/api-keys")).json()["keys"] == listed["keys"]
    assert not list((folder / "elsewhere").glob("*.key")), "a new key over old secrets would lose them"


async def test_a_key_that_others_can_read_is_not_used_until_they_cannot(folder: Path) -> None:
    (key,) = (folder / "config").glob("master*.key")
    key.chmod(0o644)
    async with _lab(folder) as http:
        vault = (await http.get("/api-keys/status")).json()
    assert vault["state"] == "sealed"
    assert f"chmod 600 '{key}'" in vault["remedy"]
    key.chmod(0o600)
    async with _lab(folder) as http:
        assert (await http.get("/api-keys")).json()["configured_services"] == ["openai"]
