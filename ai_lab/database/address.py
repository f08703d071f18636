"""Where the database is: ``DATABASE_URL`` with its async driver, or the SQLite file of the data directory."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings

FILE_NAME = "ai_lab.sqlite"
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def database_address(settings: Settings) -> URL:
    """Return the address; relative SQLite paths start at the folder of ``.env``, whatever the current folder is.

    Raises:
        InvalidSettings: it is not an address, or of a database other than SQLite and Postgres.
    """
    if not settings.database_url:
        return URL.create(_DRIVERS["sqlite"], database=str(settings.data_path() / FILE_NAME))
    try:
        url = make_url(settings.database_url)
    except (ArgumentError, ValueError):
        raise InvalidSettings(
            "DATABASE_URL is not an address. Use sqlite+aiosqlite:///path or postgresql+asyncpg://user@host/name."
        ) from None
    kind = url.drivername.partition("+")[0]
    if kind not in _DRIVERS:
        raise InvalidSettings(f"DATABASE_URL names {kind!r}; AI Lab works with sqlite and postgresql.")
    url = url.set(drivername=_DRIVERS[kind])
    if kind != "sqlite":
        return url
    if not url.database or ":memory:" in url.database:
        raise InvalidSettings("DATABASE_URL names no file. A database in memory would lose what is said.")
    return url.set(database=str(settings.absolute(Path(url.database))))


def shown(url: URL) -> str:
    """Return the address for people, without the password."""
    return url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
