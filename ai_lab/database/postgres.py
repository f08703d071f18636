"""What can be wrong between AI Lab and a Postgres server, and the SQL that mends it."""

from __future__ import annotations

import asyncpg
from sqlalchemy.engine import URL

from ai_lab.database.address import shown
from ai_lab.errors import DatabaseUnusable


async def create_missing_database(url: URL) -> None:
    """Create the database if it is missing and this user may.

    Raises:
        DatabaseUnusable: it is missing and the user may not; the text holds the SQL for someone who may.
    """
    try:
        connection = await _connect(url, url.database or "")
    except asyncpg.InvalidCatalogNameError:
        await _create_database(url)
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise explain_postgres(url, error) from error
    else:
        await connection.close()


def explain_postgres(url: URL, error: Exception) -> DatabaseUnusable:
    """Return what went wrong as one line with the remedy."""
    cause = _root(error)
    user, name = url.username or "your user", url.database
    if isinstance(cause, asyncpg.InvalidCatalogNameError):
        return DatabaseUnusable(f"{shown(url)}: the database does not exist. Run setup_database.py to create it.")
    if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):  # a wrong password is one of these
        return DatabaseUnusable(f"{shown(url)}: Postgres refuses user {user}. Check user and password in DATABASE_URL.")
    if isinstance(cause, asyncpg.InsufficientPrivilegeError):
        return DatabaseUnusable(
            f"{shown(url)}: user {user} may not create tables. As a Postgres administrator run, in database {name}: "
            f"GRANT USAGE, CREATE ON SCHEMA public TO {quoted(user)};"
        )
    if isinstance(cause, OSError | TimeoutError):
        return DatabaseUnusable(
            f"{shown(url)}: no Postgres server answers there. Start it, or correct host and port in DATABASE_URL."
        )
    return DatabaseUnusable(f"{shown(url)}: {cause}")


def quoted(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


async def _create_database(url: URL) -> None:
    statement = f"CREATE DATABASE {quoted(url.database or '')}"
    try:
        connection = await _connect(url, "postgres")
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise _ask_for(url, statement) from error
    try:
        await connection.execute(statement)
    except asyncpg.DuplicateDatabaseError:  # another replica was quicker
        pass
    except asyncpg.InsufficientPrivilegeError as error:
        raise _ask_for(url, statement) from error
    finally:
        await connection.close()


def _ask_for(url: URL, statement: str) -> DatabaseUnusable:
    owner = f" OWNER {quoted(url.username)}" if url.username else ""
    return DatabaseUnusable(
        f"{shown(url)}: the database does not exist and this user may not create it. "
        f"As a Postgres administrator run: {statement}{owner};"
    )


async def _connect(url: URL, database: str) -> asyncpg.Connection:
    plain = url.set(drivername="postgresql", database=database).render_as_string(hide_password=False)
    return await asyncpg.connect(plain, timeout=5)


def _root(error: BaseException) -> BaseException:
    """Return the driver's own error under SQLAlchemy's and ours."""
    inner = getattr(error, "orig", None) or error.__cause__
    return error if inner is None else _root(inner)
