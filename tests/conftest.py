"""What every test may ask for: a fresh database of either kind, and whether there is time for long rounds."""

from __future__ import annotations

import asyncio
import gc
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ai_lab.database.setup import prepare_database
from tests.postgres import PostgresServer
from tests.preloaded import preloading
from tests.security.canary import assert_none_left, no_secret_is_left_behind

__all__ = ["no_secret_is_left_behind"]  # a fixture of every test


#: Files that take more than about 15 s, the longest first.
_LONGEST = (
    "tests/docs/test_readme.py",
    "tests/benchmarks/test_service_endings.py",
    "tests/fuzz/",
    "tests/cli/test_bench.py",
    "tests/benchmarks/test_example_notebook.py",
    "tests/client/test_lost_answers.py",
    "tests/cli/test_top.py",
    "tests/benchmarks/test_honest_grading.py",
    "tests/faults/",
    "tests/benchmarks/",
    "tests/security/",
    "tests/importer/test_kill.py",
    "tests/vault/",
    "tests/telemetry/test_prometheus_server.py",
    "tests/providers/test_engine_life.py",
)


#: Secrets of a run, and what is made of them.
_SECRET = re.compile(rb"CANARY|[\w\-+/=]{40}")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by its argument where that is a secret: no report shows it, and every worker has the same names."""
    text = val if isinstance(val, str | bytes) else b""
    return argname if _SECRET.search(text.encode() if isinstance(text, str) else text) else None


def pytest_configure() -> None:
    """Let programs under test be interrupted also where the tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # which their child processes would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--thorough``."""
    parser.addoption("--thorough", action="store_true", help="run the long rounds in full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that none is left over; leave out what is only run in full."""
    items.sort(key=lambda item: next((at for at, name in enumerate(_LONGEST) if item.nodeid.startswith(name)), 99))
    if config.getoption("--thorough"):
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Have no collection of garbage go through all that thousands of tests are made of: it took an eighth of a run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _config_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep labs of this process off the keys and tokens of whoever runs the tests, and off their caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_LAB_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        patch.setenv("AI_LAB_CACHE", "false")  # tests ask the same thing again and again
        patch.setenv("AI_LAB_RETRY_WAIT_SECONDS", "0.01")
        yield


@pytest.fixture(scope="session", autouse=True)
def _preloaded_programs() -> Iterator[None]:
    """Have programs under test forked off one that has imported everything, which saves half of the run."""
    with preloading():
        yield


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Say whether rounds shall run in full; without ``--thorough`` they are shortened."""
    return bool(pytestconfig.getoption("--thorough"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give the one server, started when the first test needs it."""
    server = PostgresServer()
    yield server
    try:
        assert_none_left([server.folder / "data"])  # the write-ahead log has what dropped databases held
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """Give the address of an empty Postgres database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the address of a fresh migrated database, of SQLite and of Postgres in turn."""
    if request.param == "sqlite":
        file = tmp_path / "database" / "ai_lab.sqlite"
        file.parent.mkdir(mode=0o700)
        shutil.copy(request.getfixturevalue("migrated_file"), file)
        yield f"sqlite+aiosqlite:///{file}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.migrated(request.getfixturevalue("migrated_template"))
    yield server.url(name)
    server.give_back(name)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate one SQLite file, which tests get copies of."""
    file = tmp_path_factory.mktemp("template") / "ai_lab.sqlite"
    _migrate(f"sqlite+aiosqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    """Migrate one Postgres database, which tests get copies of."""
    name = postgres.create_database()
    _migrate(postgres.url(name))
    return name


def _migrate(url: str) -> None:
    """Run in a thread of its own: the tests' thread has its event loop already."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(prepare_database(make_url(url)))).result()
