"""An ``ai_lab.db`` of the earlier AI-Lab: a row per message, agent state and measurement. Opened read-only."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ai_lab.errors import DatabaseUnusable, SourceDamaged
from ai_lab.importer.cleaning import read_moment
from ai_lab.importer.measurements import Measurements
from ai_lab.importer.records import Holds, Records, Source, message_record, state_record
from ai_lab.importer.text_file import Watcher

_HOLDS: dict[str, Holds] = {"conversations": "messages", "agent_states": "states"}
_COUNTED = ("api_keys",)
_MEASURED = "performance_metrics"
_NO_SESSION = "no-session"
_LARGEST_KEY_ROW_BYTES = 1024 * 1024


class EarlierDatabase:
    """The file, open for reading; a copy of it where SQLite would have to touch it (a log lies beside it)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self.columns: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def counts(self) -> dict[str, int]:
        """Return the rows of the tables that are brought in by other commands."""
        found = {}
        for table in _COUNTED:
            if table in self.columns:
                try:
                    (found[table],) = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - ours
                except sqlite3.DatabaseError:
                    found[table] = 0
        return found

    def sources(self, watcher: Watcher) -> Iterator[Source | SourceDamaged]:
        """Yield each conversation and each agent; a damaged table does not keep the other one out."""
        for table, holds in _HOLDS.items():
            if table not in self.columns:
                continue
            try:
                self._index(table)
                sessions = self._db.execute(f"SELECT DISTINCT session FROM {table}_order ORDER BY session")  # noqa: S608
                for (session,) in sessions:
                    yield self._source(table, holds, session)
            except sqlite3.DatabaseError as error:
                yield SourceDamaged(f"table {table}: {error}", origin=str(self.path))
        watcher(self.path.stat().st_size)

    def measurements(self) -> Measurements | None:
        """Return the measurements, or None where there are none."""
        return Measurements(self.path, self._measured) if _MEASURED in self.columns else None

    def api_keys(self) -> Iterator[dict[str, Any] | SourceDamaged]:
        """Yield the rows of the table of API keys by the names of their columns in small letters.

        Raises:
            SourceDamaged: the table cannot be read at all.
        """
        if "api_keys" not in self.columns:
            return
        names = [name.lower() for name in self.columns["api_keys"]]
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_KEY_ROW_BYTES)
        try:
            numbers = [number for (number,) in self._db.execute("SELECT rowid FROM main.api_keys ORDER BY rowid")]
        except sqlite3.DatabaseError as error:
            raise SourceDamaged(f"table api_keys: {error}", origin=str(self.path)) from error
        for number in numbers:
            try:
                row = self._db.execute("SELECT * FROM main.api_keys WHERE rowid = ?", [number]).fetchone()
            except sqlite3.DatabaseError as error:
                yield SourceDamaged(f"it cannot be read ({error})", origin=str(self.path))
            else:
                yield {name: _plain(value) for name, value in zip(names, row, strict=True)}

    def _measured(self) -> Iterator[tuple[int | None, Any, Any]]:
        """Yield (microseconds, name, value) by time; None stands for a column that is missing."""
        columns = {name.lower() for name in self.columns[_MEASURED]}
        time = "moment(CAST(timestamp AS BLOB))" if "timestamp" in columns else "NULL"
        name, value = (column if column in columns else "NULL" for column in ("metric_name", "metric_value"))
        rows = f"SELECT {time} AS moment, {name}, {value} FROM main.{_MEASURED} ORDER BY moment, rowid"  # noqa: S608 - ours
        for moment, measured, number in self._db.execute(rows):
            yield moment, _plain(measured), _plain(number)

    def _open(self) -> None:
        if not self.path.is_file():
            raise DatabaseUnusable(
                f"There is no file {self.path}. Give the earlier database with --from-database PATH."
            )
        try:
            self._db = self._stack.enter_context(closing(_connect(self._untouched())))
            self._db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            self._db.create_function("moment", 1, _microseconds, deterministic=True)
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table in (*_HOLDS, *_COUNTED, _MEASURED):
                if table in tables:
                    self.columns[table] = [name for (_, name, *_) in self._db.execute(f"PRAGMA table_info({table})")]
        except (sqlite3.DatabaseError, OSError) as error:
            raise DatabaseUnusable(f"{self.path} cannot be read as a SQLite database ({error}).") from error
        if "alembic_version" in tables:
            raise DatabaseUnusable(
                f"{self.path} is a database of this AI Lab, there is nothing to import: point DATABASE_URL to it."
            )
        if not self.columns:
            raise DatabaseUnusable(f"{self.path} has none of the tables {', '.join((*_HOLDS, *_COUNTED, _MEASURED))}.")

    def _untouched(self) -> tuple[Path, str]:
        """Return a file that can be read without changing anything in the source's folder, and how to open it."""
        file = self.path.resolve()  # the logs lie beside the file itself, not beside a link to it
        beside = [file.with_name(file.name + end) for end in ("-wal", "-journal")]
        pending = [path for path in beside if path.is_file() and path.stat().st_size]
        if not pending:
            with file.open("rb") as start:
                uses_log = start.read(20)[18:20] == b"\x02\x02"
            # With a write-ahead log SQLite would create files beside the source, even for reading.
            return file, "mode=ro&immutable=1" if uses_log else "mode=ro"
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ai-lab-import-")))
        files = [file, *pending]
        before = [_state(path) for path in files]
        for path in files:
            shutil.copyfile(path, folder / path.name)
        if before != [_state(path) for path in files]:
            raise DatabaseUnusable(f"{self.path} is being written. Stop the earlier AI-Lab and try again.")
        return folder / file.name, "mode=rw"

    def _index(self, table: str) -> None:
        """Number the rows by session in a temporary table (the file itself may have no index to find them by)."""
        columns = {name.lower() for name in self.columns[table]}
        session = "session_id" if "session_id" in columns else "NULL"
        time = "moment(CAST(timestamp AS BLOB))" if "timestamp" in columns else "NULL"
        self._db.execute(
            f"CREATE TEMP TABLE {table}_order AS SELECT CAST(coalesce({session}, '{_NO_SESSION}') AS BLOB) AS session,"  # noqa: S608 - our own names
            f" {time} AS moment, rowid AS source_row FROM main.{table}"
        )
        self._db.execute(f"CREATE INDEX {table}_by_session ON {table}_order (session, moment, source_row)")

    def _source(self, table: str, holds: Holds, session: bytes) -> Source:
        name = session.decode("utf-8", "surrogateescape")
        origin = f"{self.path} {table} {session.decode('utf-8', 'replace')}"

        def read() -> Records:
            try:
                for fields in self._rows(table, session):
                    yield message_record(fields) if holds == "messages" else state_record(fields)
            except (sqlite3.DatabaseError, ValueError) as error:
                raise SourceDamaged(str(error), origin=origin) from error

        return Source(holds, name, origin, read)

    def _rows(self, table: str, session: bytes) -> Iterator[dict[str, Any]]:
        """Yield the rows by time where every row has one, else in the order in which they were written."""
        undated = f"SELECT 1 FROM {table}_order WHERE session = ? AND moment IS NULL LIMIT 1"  # noqa: S608 - our names
        order = "" if self._db.execute(undated, [session]).fetchone() else "o.moment, "
        statement = (
            f"SELECT t.* FROM {table}_order o JOIN main.{table} t ON t.rowid = o.source_row"  # noqa: S608 - as above
            f" WHERE o.session = ? ORDER BY {order}o.source_row"
        )
        names = [name.lower() for name in self.columns[table]]
        for row in self._db.execute(statement, [session]):
            fields = {name: _plain(value) for name, value in zip(names, row, strict=True) if value is not None}
            fields.pop("id", None)
            fields.pop("session_id", None)
            yield fields


def _connect(file: tuple[Path, str]) -> sqlite3.Connection:
    path, mode = file
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=5)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _microseconds(value: bytes | None) -> int | None:
    """Return a moment as a number that SQLite can sort by."""
    try:
        moment = read_moment((value or b"").decode("utf-8", "replace"))
    except (ValueError, OverflowError, OSError):
        return None
    return int(moment.timestamp() * 1_000_000)


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
