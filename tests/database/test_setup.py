import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from ai_lab.agents import tables as _agents
from ai_lab.benchmarks import tables as _benchmarks
from ai_lab.cache import tables as _cache
from ai_lab.conversations import tables as _conversations
from ai_lab.costs import tables as _costs
from ai_lab.database import Database, instances, metadata
from ai_lab.database.command import main
from ai_lab.database.setup import known_revisions, newest_revision, prepare_database
from ai_lab.errors import DatabaseDamaged, DatabaseTooNew, DatabaseUnusable, DataDirUnusable, EarlierDatabase
from ai_lab.gateway import tables as _gateway
from ai_lab.importer import tables as _importer
from ai_lab.rate_limits import tables as _rate_limits
from ai_lab.telemetry import tables as _telemetry
from ai_lab.traces import tables as _traces
from ai_lab.vault import tables as _vault

_DECLARED = (
    _agents,
    _benchmarks,
    _cache,
    _conversations,
    _costs,
    _gateway,
    _importer,
    _rate_limits,
    _telemetry,
    _traces,
    _vault,
    instances,
)
_BY_HAND = {"ix_messages_unfinished", "ix_messages_search", "search", "ix_vault_keys_current"}


async def test_the_migrations_make_the_declared_tables(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        def is_declared(name: str | None, kind: str, _parents: object) -> bool:
            return name in metadata.tables if kind == "table" else name not in _BY_HAND

        context = MigrationContext.configure(connection, opts={"include_name": is_declared})
        found: list[object] = compare_metadata(context, metadata)
        return found

    database = Database(make_url(database_url))
    async with database.reading() as db:
        assert await db.run_sync(differences) == []
    await database.close()


async def test_a_second_run_changes_nothing(database_url: str) -> None:
    report = await prepare_database(make_url(database_url))
    assert (report.before, report.after) == (newest_revision(), newest_revision())


def test_there_is_one_chain_of_migrations() -> None:
    revisions = known_revisions()
    assert newest_revision() in revisions
    assert [revision for revision, before in revisions.items() if before is None] == ["0001"]


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    url = make_url(database_url)
    database = Database(url)
    async with database.transaction() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(DatabaseTooNew, match="newer AI Lab"):
        await prepare_database(url)


def _earlier(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE conversations (id TEXT PRIMARY KEY, session_id TEXT, role TEXT, content TEXT)")
        db.execute("INSERT INTO conversations VALUES ('1', 's', 'User', 'kept')")
        db.commit()


async def test_a_database_of_the_earlier_ai_lab_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ai_lab.db"
    _earlier(path)
    before = path.read_bytes()
    with pytest.raises(EarlierDatabase, match=r"migrate_json_to_db\.py --from-database"):
        await prepare_database(make_url(f"sqlite+aiosqlite:///{path}"))
    assert path.read_bytes() == before


async def test_the_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match="belongs to another program"):
        await prepare_database(make_url(f"sqlite+aiosqlite:///{path}"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "truncated", "middle", "short"])
async def test_a_damaged_file_is_refused_and_kept_byte_for_byte(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.sqlite"
    url = make_url(f"sqlite+aiosqlite:///{path}")
    await prepare_database(url)
    whole = path.read_bytes()
    broken = {
        "garbage": b"not a database at all" * 100,
        "truncated": whole[: len(whole) // 2],
        "middle": whole[:4096] + b"\xff" * 8192 + whole[12288:],
        "short": whole[:50],
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(DatabaseDamaged, match="is damaged"):
        await prepare_database(url)
    assert path.read_bytes() == broken


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirUnusable, match="AI_LAB_DATA_DIR"):
        await prepare_database(make_url(f"sqlite+aiosqlite:///{tmp_path}/file/data/x.sqlite"))


async def test_the_data_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    await prepare_database(make_url(f"sqlite+aiosqlite:///{tmp_path}/data/x.sqlite"))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


class TestCommand:
    """``setup_database.py`` as it is called."""

    def test_creates_then_finds_it_up_to_date(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        url = f"sqlite+aiosqlite:///{tmp_path}/x.sqlite"
        assert main(["--url", url, "--check"]) == 2
        assert "There is no database" in capsys.readouterr().err
        assert main(["--url", url]) == 0
        assert "created" in capsys.readouterr().out
        assert main(["--url", url, "--check"]) == 0
        assert "up to date" in capsys.readouterr().out

    def test_says_in_one_line_what_is_wrong(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        _earlier(tmp_path / "ai_lab.db")
        assert main(["--url", f"sqlite:///{tmp_path}/ai_lab.db"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
