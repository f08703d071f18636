"""A look at a SQLite file before it is opened for writing, and copies of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ai_lab.errors import DatabaseDamaged, DatabaseUnusable, DataDirUnusable, EarlierDatabase

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_QUICK_CHECK_LIMIT_BYTES = 64 * 1024 * 1024  # a larger file would delay every start


def make_folder(folder: Path) -> None:
    """Create ``folder`` for its owner only, and see that it can be written.

    Raises:
        DataDirUnusable: it cannot; the text says why and what to do.
    """
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataDirUnusable(
            f"{folder} cannot be written ({error.strerror}). Give your user the right to write there, "
            "or set AI_LAB_DATA_DIR to another folder."
        ) from error


def inspect_file(path: Path, *, must_exist: bool = False) -> None:
    """See that ``path`` is ours, whole and readable, without opening it for writing; an empty file is fine.

    Raises:
        DatabaseDamaged: it is no whole SQLite database.
        EarlierDatabase: it belongs to the earlier AI-Lab.
        DatabaseUnusable: it belongs to another program, cannot be read, or is missing though it must exist.
    """
    if must_exist and not path.exists():
        raise DatabaseUnusable(f"There is no database at {path} yet. Run setup_database.py without --check.")
    try:
        size = path.stat().st_size if path.exists() else 0
        if size == 0:
            return
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise DatabaseUnusable(f"{path} cannot be read ({error.strerror}). Check its owner and mode.") from error
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise _damaged(path, "it does not start like a SQLite database")
    _see_that_it_is_whole(path, header, size)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            columns = {name for (_, name, *_) in db.execute("PRAGMA table_info(conversations)")}
            if size <= _QUICK_CHECK_LIMIT_BYTES:
                ((verdict,),) = db.execute("PRAGMA quick_check(1)").fetchall()
                if verdict != "ok":
                    raise _damaged(path, verdict)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise DatabaseUnusable(f"{path} is locked by another program. Stop it and try again.") from error
        raise _damaged(path, str(error)) from error
    if "alembic_version" in tables or not tables:
        return
    if "role" in columns:
        raise EarlierDatabase(
            f"{path} is a database of the earlier AI-Lab; it is left as it is. Point DATABASE_URL somewhere else (or "
            f"remove it) and bring the old data in with: python migrate_json_to_db.py --from-database {path}"
        )
    raise DatabaseUnusable(f"{path} belongs to another program. Point DATABASE_URL to a file of its own.")


def back_up(path: Path, revision: str) -> Path:
    """Copy a database that may be in use, page by page, and return where the copy lies."""
    target = path.with_name(f"{path.name}.before-{revision}.bak")
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    with (
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(part)) as copy,
    ):
        source.backup(copy)
    part.chmod(0o600)
    part.replace(target)
    return target


def _see_that_it_is_whole(path: Path, header: bytes, size: int) -> None:
    """Compare the size with the header's page count, where no write-ahead log may hold the missing pages."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        return
    page_size = int.from_bytes(header[16:18]) or 1
    page_size = 65536 if page_size == 1 else page_size
    pages = int.from_bytes(header[28:32])
    counters_agree = header[24:28] == header[92:96]  # else an old library wrote the page count, and it means nothing
    if counters_agree and size < pages * page_size:
        raise _damaged(path, f"it has {size} of {pages * page_size} bytes")


def _damaged(path: Path, reason: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"{path} is damaged ({' '.join(reason.split())}). It is left as it is: restore a backup "
        f"({path.name}.before-*.bak lies beside it after a migration), or move the file away to start with an empty "
        "database."
    )
