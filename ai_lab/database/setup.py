"""Make a database ready: look at it without touching it, create what is missing, migrate, and refuse with a remedy.

Nothing here ever recreates, overwrites or downgrades. Before an existing SQLite file is migrated it is copied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ai_lab.database.address import shown
from ai_lab.database.engine import Database
from ai_lab.database.sqlite_file import back_up, inspect_file, make_folder
from ai_lab.errors import DatabaseTooNew, DatabaseUnavailable, DatabaseUnusable, EarlierDatabase

_IN_REPOSITORY = Path(__file__).resolve().parent.parent.parent / "migrations"
MIGRATIONS = _IN_REPOSITORY if _IN_REPOSITORY.is_dir() else Path(__file__).resolve().parent / "migrations"
_FIELD = re.compile(r"^(revision|down_revision)\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)
_MIGRATION_LOCK = 8001_2026  # any number, the same in every process


@dataclass(frozen=True)
class SetupReport:
    """What was found and done. ``before`` and ``after`` are revisions; None means an empty database."""

    address: str
    before: str | None
    after: str | None
    newest: str
    backup: Path | None = None

    @property
    def is_current(self) -> bool:
        """Return whether the database has the schema of this version."""
        return self.after == self.newest


async def prepare_database(url: URL) -> SetupReport:
    """Create the database if there is none, bring its schema to this version, and say what was done.

    Raises:
        DatabaseUnusable: and its subclasses, each with the remedy; nothing was changed then.
    """
    return await _set_up(url, change=True)


async def check_database(url: URL) -> SetupReport:
    """Say what ``prepare_database`` would find; changes nothing. Raises as it does, also where there is none yet."""
    return await _set_up(url, change=False)


def known_revisions() -> dict[str, str | None]:
    """Return every revision with the one before it, read from the files (quicker than starting Alembic)."""
    revisions = {}
    for path in sorted((MIGRATIONS / "versions").glob("*.py")):
        fields = dict(_FIELD.findall(path.read_text(encoding="utf-8")))
        revisions[fields["revision"]] = fields.get("down_revision")
    return revisions


def newest_revision() -> str:
    """Return the revision that no other builds upon."""
    revisions = known_revisions()
    (newest,) = set(revisions) - set(revisions.values())
    return newest


async def _set_up(url: URL, *, change: bool) -> SetupReport:
    if url.get_backend_name() == "sqlite":
        return await _set_up_sqlite(url, change=change)
    return await _set_up_postgres(url, change=change)


async def _set_up_sqlite(url: URL, *, change: bool) -> SetupReport:
    path = Path(url.database or "")
    if change:
        make_folder(path.parent)
    inspect_file(path, must_exist=not change)
    try:
        return await _migrate(url, change=change)
    except DBAPIError as error:
        raise DatabaseUnusable(f"{path}: {error.orig}") from error
    except DatabaseUnavailable as error:
        raise DatabaseUnusable(f"{path}: {error.detail}") from error


async def _set_up_postgres(url: URL, *, change: bool) -> SetupReport:
    from ai_lab.database.postgres import create_missing_database, explain_postgres  # noqa: PLC0415 - loads a driver

    if change:
        await create_missing_database(url)
    try:
        return await _migrate(url, change=change)
    except (DBAPIError, DatabaseUnavailable) as error:
        raise explain_postgres(url, error) from error


async def _migrate(url: URL, *, change: bool) -> SetupReport:
    newest = newest_revision()
    database = Database(url, pooled=False)
    try:
        async with database.reading() as db:
            before, is_foreign = await db.run_sync(_look)
        if is_foreign:
            raise EarlierDatabase(
                f"{shown(url)} holds conversations of another program or of the earlier AI-Lab; it is left as it is. "
                "Give AI Lab a database of its own: name another one in DATABASE_URL."
            )
        if before is not None and before not in known_revisions():
            raise DatabaseTooNew(
                f"{shown(url)} was migrated by a newer AI Lab (schema {before}, this version knows {newest}). Update "
                "AI Lab, or restore the backup that was made beside the database before that migration."
            )
        if before == newest or not change:
            return SetupReport(shown(url), before, before, newest)
        backup = back_up(Path(url.database or ""), before) if database.is_sqlite and before else None
        async with database.transaction() as db:
            await db.run_sync(_upgrade, is_sqlite=database.is_sqlite)
        return SetupReport(shown(url), before, newest, newest, backup)
    finally:
        await database.close()


def _look(connection: Connection) -> tuple[str | None, bool]:
    """Return the revision, and whether there are conversations that no migration of ours has made."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None, connection.dialect.has_table(connection, "conversations")
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return (None if row is None else str(row[0])), False


def _upgrade(connection: Connection, *, is_sqlite: bool) -> None:
    """Run Alembic inside the caller's transaction: a killed upgrade leaves the old schema, whole."""
    from alembic import command  # noqa: PLC0415 - 0.2 s that only a migration needs
    from alembic.config import Config  # noqa: PLC0415 - as above

    if not is_sqlite:  # several replicas may start at once
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
