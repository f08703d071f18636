"""A stolen database is worth nothing, and nobody else on the machine can read the key that would change that."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.security.canary import files_with_secrets, new_secret
from tests.server import ServerProcess

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files have no modes there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a stopped lab that has stored two keys, and has lost one of them again."""
    folder = tmp_path_factory.mktemp("files")
    with _lab(folder) as server:
        for service in ("openai", "anthropic"):
            body = {"service_name": service, "api_key": new_secret("sk-ant-api03-" if service[0] == "a" else "sk-")}
            httpx.post(f"{server.url}/api-keys", json=body).raise_for_status()
        httpx.delete(f"{server.url}/api-keys/anthropic").raise_for_status()
        assert files_with_secrets(folder) == []  # while it runs: with the write-ahead log
        assert server.stop() == 0
    return folder


def _lab(folder: Path, data: str = "data", config: str = "config") -> ServerProcess:
    return ServerProcess(folder / data, {"AI_LAB_CONFIG_DIR": str(folder / config), "LOG_LEVEL": "DEBUG"})


@pytest.fixture
def sealed(folder: Path) -> Iterator[ServerProcess]:
    """Give a server with the data of the lab on a machine without its key."""
    shutil.copytree(folder / "data", folder / "stolen", ignore=shutil.ignore_patterns("*.server*"))
    with _lab(folder, "stolen", "elsewhere") as server:
        yield server


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_belong_to_one_user(folder: Path) -> None:
    keys = list((folder / "config").glob("master*.key"))
    assert len(keys) == 1
    assert {_mode(path) for path in keys} == {0o600}
    assert {_mode(path) for path in (folder / "config", folder / "data")} == {0o700}
    for path in (folder / "config").iterdir():
        assert _mode(path) & 0o077 == 0, path.name


def test_the_root_key_is_not_where_the_data_is(folder: Path) -> None:
    (key,) = (folder / "config").glob("master*.key")
    text = key.read_bytes().strip()
    assert len(text) >= 44
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if text in path.read_bytes()] == []
    assert [path for path in (folder / "data").rglob("*") if path.suffix == ".key" or "token" in path.name] == []
    assert text.decode() not in (folder / "data.log").read_text(encoding="utf-8")


def test_a_stolen_database_shows_names_and_opens_for_nobody(folder: Path, sealed: ServerProcess) -> None:
    assert files_with_secrets(folder / "stolen") == []
    with httpx.Client(base_url=sealed.url, timeout=30) as http:
        listed = http.get("/api-keys").raise_for_status().json()
        assert [(key["service_name"], key["label"]) for key in listed["keys"]] == [("openai", "default")]
        assert listed["vault"]["state"] == "sealed"
        assert listed["vault"]["remedy"]
        before = (folder / "stolen" / "ai_lab.sqlite").stat().st_size
        body = {"service_name": "openai", "api_key": new_secret()}
        for answer in (
            http.post("/api-keys", json=body),
            http.post("/api-keys/openai/test"),
            http.patch("/api-keys/openai", json={"label": "x"}),
            http.delete("/api-keys/openai"),
            http.post("/api-keys/rotate"),
            http.post("/api-keys/rekey"),
            http.post("/chat", json={"message": "x", "model": "openai/gpt-5"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "vault_sealed"), answer.text
        health = http.get("/health/detailed")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert http.post("/chat", json={"message": "x", "model": "echo/echo"}).status_code == 200
        assert http.get("/api-keys").json()["keys"] == listed["keys"]
        assert (folder / "stolen" / "ai_lab.sqlite").stat().st_size == before
    assert not list((folder / "elsewhere").glob("*.key")), "a new key over old secrets would lose them"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_not_used(folder: Path, mode: int) -> None:
    (key,) = (folder / "config").glob("master*.key")
    key.chmod(mode)
    try:
        with _lab(folder) as server:
            vault = httpx.get(f"{server.url}/api-keys/status").json()
    finally:
        key.chmod(0o600)
    assert vault["state"] == "sealed"
    assert f"chmod 600 {key}" in vault["remedy"].replace("'", "").replace('"', "")


def test_after_all_that_the_key_still_opens_the_vault(folder: Path) -> None:
    with _lab(folder) as server:
        assert httpx.get(f"{server.url}/api-keys").json()["configured_services"] == ["openai"]
