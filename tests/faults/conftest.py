from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ServerProcess


@pytest.fixture(params=["sqlite", "postgres"])
def own_database_url(request: pytest.FixtureRequest) -> str | None:
    """Give what DATABASE_URL shall be: nothing for the SQLite file of the data directory, or an empty Postgres."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Give a server over SQLite that a test may set up and has to start."""
    process = ServerProcess(tmp_path / "data", {"LOG_LEVEL": "WARNING", "AI_LAB_RATE_LIMITS": "false"})
    yield process
    process.kill()
