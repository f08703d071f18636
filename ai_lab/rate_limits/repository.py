"""All SQL about windows of rate limits that several servers share. Postgres only: SQLite has one server."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.database import Database
from ai_lab.errors import DatabaseUnavailable
from ai_lab.rate_limits.window import Usage

# One statement, so that two servers can never both take the last place: the row's own lock decides, and the condition
# is looked at after it. The clock is the database's, which all servers share. What is lost with a power cut is a count
# of requests, so nobody waits for the disk.
_TAKE = text("""
WITH given AS MATERIALIZED (
  SELECT CAST(:key AS text) AS key, CAST(:most AS bigint) AS most, CAST(:period AS float8) AS period,
         CAST(:cost AS bigint) AS cost,
         CAST(extract(epoch FROM clock_timestamp()) AS float8) AS now,
         set_config('synchronous_commit', 'off', true) AS unused
), place AS MATERIALIZED (
  SELECT key || '/' || CAST(floor(now / period) AS bigint) AS current_key,
         key || '/' || CAST(floor(now / period) - 1 AS bigint) AS previous_key,
         (floor(now / period) + 1) * period - now AS left_seconds,
         (floor(now / period) + 2) * period AS expires_at,
         most, period, cost
  FROM given
), previous AS MATERIALIZED (
  SELECT coalesce((SELECT count FROM rate_limit_windows WHERE key = previous_key), 0) AS count FROM place
), weighed AS MATERIALIZED (
  SELECT most - floor(previous.count * left_seconds / period) AS room FROM place, previous
), taken AS (
  INSERT INTO rate_limit_windows AS kept (key, count, expires_at)
  SELECT current_key, cost, expires_at FROM place, weighed WHERE room >= cost
  ON CONFLICT (key) DO UPDATE SET count = kept.count + (SELECT cost FROM given)
  WHERE kept.count + (SELECT cost FROM given) <= (SELECT room FROM weighed)
  RETURNING count
)
SELECT EXISTS (SELECT FROM taken) AS allowed, previous.count AS previous, left_seconds,
       coalesce((SELECT count FROM taken), (SELECT count FROM rate_limit_windows WHERE key = current_key), 0) AS current
FROM place, previous
""")
_PURGE = text("""
DELETE FROM rate_limit_windows WHERE key IN (
  SELECT key FROM rate_limit_windows WHERE expires_at < extract(epoch FROM clock_timestamp())
  LIMIT 5000 FOR UPDATE SKIP LOCKED
)
""")


class RateLimitRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def take(self, key: str, limit: int, period_seconds: float, cost: int = 1) -> Usage:
        """Count ``cost`` for ``key`` if that fits in, and return what is used."""
        values = {"key": key, "most": limit, "period": period_seconds, "cost": cost}
        row = (await self._db.execute(_TAKE, values)).one()
        return Usage(row.allowed, row.previous, row.left_seconds, row.current, row.left_seconds)

    async def purge(self) -> None:
        """Delete windows that weigh nothing any more; several servers do not wait for each other."""
        await self._db.execute(_PURGE)


class SharedWindows:
    """Windows in the database, a short transaction each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, key: str, limit: int, period_seconds: float, cost: int = 1) -> Usage:
        """Count ``cost`` for ``key`` if that fits in, and return what is used.

        Raises:
            DatabaseUnavailable: it cannot be counted, for whatever reason.
        """
        try:
            async with self._database.transaction() as db:
                return await RateLimitRepository(db).take(key, limit, period_seconds, cost)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable("Requests cannot be counted in the database.") from error

    async def purge(self) -> None:
        """Delete windows that weigh nothing any more. Raises as ``take`` does."""
        try:
            async with self._database.transaction() as db:
                await RateLimitRepository(db).purge()
        except SQLAlchemyError as error:
            raise DatabaseUnavailable("Old windows cannot be deleted.") from error

    async def close(self) -> None:
        """Nothing is open."""
