"""One real server for whoever attacks it over HTTP; it logs all there is to log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import ServerProcess


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the server's data, keys and logs."""
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="session")
def attacked(lab_folder: Path) -> Iterator[ServerProcess]:
    """Give a running server with a vault of its own; stored keys may be used with this machine."""
    settings = {
        "AI_LAB_DEFAULT_MODEL": "echo/echo",
        "AI_LAB_CONFIG_DIR": str(lab_folder / "config"),
        "AI_LAB_ALLOWED_ADDRESSES": "127.0.0.1",
        "AI_LAB_RATE_LIMITS": "false",
        "AI_LAB_LOG_FILE": "lab.log",
        "LOG_LEVEL": "DEBUG",
    }
    with ServerProcess(lab_folder / "data", settings, is_anew=True) as server:  # its memory is looked at
        yield server


@pytest.fixture
def http(attacked: ServerProcess) -> Iterator[httpx.Client]:
    """Give a client of it."""
    with httpx.Client(base_url=attacked.url, timeout=30) as client:
        yield client
