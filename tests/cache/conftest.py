"""Migrated databases, which several servers may share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer


@pytest.fixture
def migrated_postgres(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    name = postgres.create_database(migrated_template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def migrated_sqlite(migrated_file: Path, tmp_path: Path) -> str:
    file = tmp_path / "ai_lab.sqlite"
    shutil.copy(migrated_file, file)
    return f"sqlite+aiosqlite:///{file}"
