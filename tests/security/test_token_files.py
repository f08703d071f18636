"""Files of tokens: whose they are, who may read them, and which address a client sends them to."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest

from ai_lab.access import replace_token, token_for, token_path, tokens_of
from ai_lab.errors import TokenUnusable
from ai_lab.settings import Settings

TOKEN = f"CANARY{secrets.token_hex(16)}"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


WEAK = {
    "short": "CANARYshort",
    "one word": "CANARY" * 10,
    "space": f"CANARY {secrets.token_hex(16)}",
    "letter": f"CANARYä{secrets.token_hex(16)}",
}


@pytest.mark.parametrize("token", WEAK.values(), ids=WEAK.keys())
def test_a_weak_token_is_refused_without_repeating_it(tmp_path: Path, token: str) -> None:
    with pytest.raises(TokenUnusable) as refused:
        tokens_of(Settings(api_host=EVERYWHERE, token=token, config_dir=tmp_path))
    assert token not in str(refused.value)
    assert "AI_LAB_TOKEN" in str(refused.value)


def test_token_files_are_for_their_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "given"
    settings = Settings(api_host=EVERYWHERE, token_file=file, config_dir=tmp_path / "config")
    with pytest.raises(TokenUnusable, match="no such file"):
        tokens_of(settings)
    file.write_text(secrets.token_urlsafe(32))
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(TokenUnusable, match="chmod 600"):
            tokens_of(settings)
    file.chmod(0o600)
    tokens = tokens_of(settings)
    assert tokens
    assert tokens.take_new() is None
    assert tokens.scope_of(file.read_text()) == "admin"
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(TokenUnusable, match="cannot be read"):
        tokens_of(settings)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_a_token_file_that_another_user_shows_to_all_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "given"
    file.write_text(secrets.token_urlsafe(32))
    file.chmod(mode)
    os.chown(file, 65534, 65534)
    with pytest.raises(TokenUnusable, match="chmod 600"):
        tokens_of(Settings(api_host=EVERYWHERE, token_file=file, config_dir=tmp_path / "config"))


def test_the_token_for_metrics_may_be_read_by_others_and_written_by_none(tmp_path: Path) -> None:
    file = tmp_path / "metrics"
    file.write_text(secrets.token_urlsafe(32))
    settings = Settings(api_host=EVERYWHERE, metrics_token_file=file, config_dir=tmp_path / "config")
    for mode in (0o646, 0o664):
        file.chmod(mode)
        with pytest.raises(TokenUnusable, match="chmod go-w"):
            tokens_of(settings)
    file.chmod(0o644)
    assert tokens_of(settings)


def test_the_two_tokens_differ(tmp_path: Path) -> None:
    file = tmp_path / "metrics"
    file.write_text(secrets.token_urlsafe(32))
    settings = Settings(api_host=EVERYWHERE, token=file.read_text(), metrics_token_file=file, config_dir=tmp_path)
    with pytest.raises(TokenUnusable, match="token for metrics is the admin's"):
        tokens_of(settings)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TokenUnusable, match="AI_LAB_CONFIG_DIR"):
        tokens_of(Settings(api_host=EVERYWHERE, config_dir=tmp_path / "file" / "config"))


def test_a_new_token_takes_the_place_of_the_old(tmp_path: Path) -> None:
    settings = Settings(api_host=EVERYWHERE, config_dir=tmp_path / "config")
    before = tokens_of(settings)
    new = replace_token(settings)
    after = tokens_of(settings)
    assert before
    assert after
    assert before.scope_of(new) is None
    assert (after.scope_of(new), after.take_new()) == ("admin", None)
    assert stat.S_IMODE(token_path(settings).stat().st_mode) == 0o600
    assert sorted(path.name for path in settings.config_path().iterdir()) == ["metrics-token", "token"]
    with pytest.raises(TokenUnusable, match="AI_LAB_TOKEN"):
        replace_token(Settings(token=new))


def test_clients_send_the_servers_file_to_this_machine_alone(tmp_path: Path) -> None:
    settings = Settings(api_host="192.168.0.5", allowed_hosts=("lab.example.org",), config_dir=tmp_path)
    assert token_for(settings, "http://127.0.0.1:8001") is None
    tokens_of(settings)
    token = token_path(settings).read_text().strip()
    for url in (
        "http://127.0.0.1:1",
        "http://localhost",
        "http://[::1]:8001",
        "http://192.168.0.5:8001",
        "https://lab.example.org",
    ):
        assert token_for(settings, url) == token
    for url in (
        "http://192.168.0.6",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1@evil.example",
    ):
        assert token_for(settings, url) is None
    assert token_for(Settings(token=TOKEN), "https://elsewhere.example") == TOKEN
