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
from ai_lab.database.postgres import create_missing_database, explain_postgres
from ai_lab.database.sqlite_file import back_up, inspect_file, make_folder
from ai_lab.errors import DatabaseTooNew, DatabaseUnavailable, DatabaseUnusable

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
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        path = Path(url.database or "")
        if change:
            make_folder(path.parent)
        inspect_file(path, must_exist=not change)
    elif change:
        await create_missing_database(url)
    database = Database(url, pooled=False)
    try:
        return await _migrate(database, change=change)
    except DBAPIError as error:
        raise (DatabaseUnusable(f"{path}: {error.orig}") if is_sqlite else explain_postgres(url, error)) from error
    except DatabaseUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and not is_sqlite:
            raise explain_postgres(url, cause) from error
        raise DatabaseUnusable(f"{shown(url)}: {error.detail}") from error
    finally:
        await database.close()


async def _migrate(database: Database, *, change: bool) -> SetupReport:
    newest = newest_revision()
    async with database.reading() as db:
        before = await db.run_sync(_revision)
    if before is not None and before not in known_revisions():
        raise DatabaseTooNew(
            f"{shown(database.url)} was migrated by a newer AI Lab (schema {before}, this version knows {newest}). "
            "Update AI Lab, or restore the backup that was made beside the database before that migration."
        )
    if before == newest or not change:
        return SetupReport(shown(database.url), before, before, newest)
    backup = back_up(Path(database.url.database or ""), before) if database.is_sqlite and before else None
    async with database.transaction() as db:
        await db.run_sync(_upgrade, is_sqlite=database.is_sqlite)
    return SetupReport(shown(database.url), before, newest, newest, backup)


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


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
