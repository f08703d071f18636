"""What keeps the server from starting: one line with the remedy, exit code 2, and every byte left as it was."""

from __future__ import annotations

import hashlib
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.server import ServerProcess, free_port, run_main

_FILE = "ai_lab.sqlite"
_PASSING = (".server.lock", ".env", ".log", "-shm", "-wal")


@pytest.fixture
def data(tmp_path: Path, migrated_file: Path) -> Path:
    """Give a data directory with a database that has something to lose."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated_file, folder / _FILE)
    with closing(sqlite3.connect(folder / _FILE)) as db, db:
        moment = "2026-01-01 00:00:00.000000"
        db.execute(
            "INSERT INTO conversations(session_id, created_at, updated_at) VALUES ('kept', ?, ?)", (moment, moment)
        )
    return folder


def _refusal(data: Path, *arguments: str, **settings: str) -> str:
    """Start, see that it is refused as agreed and that nothing changed, and return what was said."""
    before = _content(data)
    result = run_main(data, "--port", str(free_port()), *arguments, settings=settings)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.strip().count("\n") == 0, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert _content(data) == before
    return result.stderr


def _content(data: Path) -> dict[str, str]:
    """Return a digest of every file but the lock and log of a running server and what reading a database may leave."""
    files = data.parent.rglob("*") if data.parent.exists() else iter(())
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not path.name.endswith(_PASSING)
    }


def test_port_taken_by_another_program(data: Path) -> None:
    program = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        port = other.stdout.readline().strip()
        said = _refusal(data, "--port", port)
        other.communicate()

    assert f"Port {port} is taken by python" in said
    assert f"process {other.pid}" in said
    assert "--port" in said


def test_port_taken_by_ai_lab(data: Path, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    server.data_dir = tmp_path_factory.mktemp("other") / "data"
    with server:
        said = _refusal(data, "--port", str(server.port))

    assert f"AI Lab already runs at {server.url}" in said
    assert "--port" in said


def test_second_start_over_the_same_data(data: Path) -> None:
    with ServerProcess(data) as server:
        said = _refusal(data)
        assert f"already runs with this data, at {server.url}" in said
        assert server.stop() == 0


def test_address_of_another_machine(data: Path) -> None:
    said = _refusal(data, "--host", "192.0.2.1")

    assert "192.0.2.1" in said
    assert "--host" in said


def test_file_in_place_of_the_data_directory(tmp_path: Path) -> None:
    blocked = tmp_path / "data"
    blocked.write_text("a file")

    said = _refusal(blocked)

    assert f"{blocked} cannot be written" in said
    assert "AI_LAB_DATA_DIR" in said


def test_data_directory_where_nobody_may_write(tmp_path: Path) -> None:
    said = _refusal(tmp_path / "data", AI_LAB_DATA_DIR="/proc/ai-lab")

    assert "/proc/ai-lab cannot be written" in said
    assert "AI_LAB_DATA_DIR" in said


def test_database_of_a_newer_version(data: Path) -> None:
    with closing(sqlite3.connect(data / _FILE)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = 'from_the_future'")

    said = _refusal(data)

    assert "newer AI Lab" in said
    assert "Update" in said


@pytest.mark.parametrize("damage", ["header", "cut", "middle"])
def test_damaged_database(data: Path, damage: str) -> None:
    file = data / _FILE
    content = bytearray(file.read_bytes())
    match damage:
        case "header":
            content[:64] = b"\x99" * 64
        case "cut":
            del content[-5000:]
        case "middle":
            content[4096 : 4096 * 6] = b"\x99" * (4096 * 5)
    file.write_bytes(content)

    said = _refusal(data)

    assert f"{file} is damaged" in said
    assert "restore a backup" in said


def test_database_of_the_earlier_ai_lab(tmp_path: Path) -> None:
    file = tmp_path / "earlier" / "ai_lab.db"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(
            "CREATE TABLE conversations (id INTEGER PRIMARY KEY, session_id TEXT, role TEXT, content TEXT, "
            "thought_process TEXT, timestamp DATETIME)"
        )
        db.execute("INSERT INTO conversations(session_id, role, content) VALUES ('s', 'User', 'remember me')")

    said = _refusal(tmp_path / "data", DATABASE_URL=f"sqlite+aiosqlite:///{file}")

    assert "earlier AI-Lab" in said
    assert f"migrate_json_to_db.py --from-database {file}" in said


def test_database_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "bookmarks.sqlite"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")

    said = _refusal(tmp_path / "data", DATABASE_URL=f"sqlite+aiosqlite:///{file}")

    assert "belongs to another program" in said


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"AI_LAB_DATADIR": "/tmp/x"}, "Did you mean AI_LAB_DATA_DIR?"),  # noqa: S108 - never used
        ({"AI_LAB_ENGINE_SLOTS": "hunter2"}, "AI_LAB_ENGINE_SLOTS"),
        ({"DATABASE_URL": "postgresql+asyncpg://u:hunter2@127.0.0.1:9/db"}, "no Postgres server answers"),
    ],
)
def test_bad_settings(data: Path, settings: dict[str, str], expected: str) -> None:
    said = _refusal(data, **settings)

    assert expected in said
    assert "hunter2" not in said


def test_socket_is_free_again_after_a_refusal(data: Path) -> None:
    (data / _FILE).write_bytes(b"no database")
    port = free_port()

    run_main(data, "--port", str(port))

    with socket.create_server(("127.0.0.1", port)):
        pass
