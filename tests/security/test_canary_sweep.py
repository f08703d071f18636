"""The search for leaked secrets that ends every run finds each kind of leak, and fails that run."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.canary import INPUTS, files_with_secrets, new_secret
from tests.server import ROOT

_LEAKS = """
from pathlib import Path
from tests.security.canary import new_secret

def test_that_leaks(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.log").write_text(f"2026-01-01 used {new_secret()} once")

def test_after_it() -> None:
    pass
"""


@pytest.mark.parametrize("more", [pytest.param([], marks=pytest.mark.thorough), ["-n", "1"]], ids=["alone", "workers"])
def test_a_run_that_leaves_a_secret_behind_fails(tmp_path: Path, more: list[str]) -> None:
    folder = tmp_path / INPUTS  # what is planted here must not fail the run that plants it
    folder.mkdir()
    (folder / "test_leaks.py").write_text(_LEAKS)
    names = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTEST_DEBUG_TEMPROOT": str(folder)}
    names["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take longer than the run
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "tests.security.canary",
    ]
    command += [
        "-p",
        "no:cacheprovider",
        "-p",
        "xdist",
        "--import-mode=importlib",
        *more,
        str(folder / "test_leaks.py"),
    ]
    result = subprocess.run(command, cwd=folder, env=names, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "2 passed, 1 error" in result.stdout
    assert "a.log" in result.stdout


def test_that_search_is_part_of_this_run(request: pytest.FixtureRequest) -> None:
    assert "no_secret_is_left_behind" in request.fixturenames


def test_every_spelling_of_a_secret_is_found(tmp_path: Path) -> None:
    folder = tmp_path / INPUTS
    folder.mkdir()
    for place in range(3):
        text = ("x" * place + new_secret()).encode()
        (folder / f"base64-{place}").write_bytes(b'{"key": "' + base64.b64encode(text) + b'"}')
        (folder / f"url-safe-{place}").write_bytes(base64.urlsafe_b64encode(text))
    (folder / "open").write_bytes(b"\0" * 5000 + new_secret().encode() + b"\0")
    (folder / "hex").write_text(new_secret().encode().hex())
    (folder / "utf-16").write_text(new_secret(), encoding="utf-16")
    (folder / new_secret()).touch()
    assert len(files_with_secrets(folder)) == 10


def test_what_is_no_secret_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "test.py").write_text('secret = f"sk-CANARY{token_hex(16)}"  # CANARY')
    (tmp_path / "random").write_bytes(base64.b64encode(os.urandom(1_000_000)))
    (tmp_path / INPUTS).mkdir()
    (tmp_path / INPUTS / ".env").write_text(f"OPENAI_API_KEY={new_secret()}")
    (tmp_path / "link").symlink_to(tmp_path / INPUTS / ".env")
    os.mkfifo(tmp_path / "pipe")
    assert files_with_secrets(tmp_path) == []
